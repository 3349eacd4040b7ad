"""Tests of the batch sampler."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from mdprop_ext.data import ClassBatchSampler


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=9),
    classes=st.integers(1, 9),
    per_class=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_every_batch_is_balanced_and_every_class_is_met(
    sizes: list[int], classes: int, per_class: int, seed: int
) -> None:
    classes = min(classes, len(sizes))
    # Labels that are neither sorted nor consecutive.
    labels = torch.tensor([10 * label - 20 for label, size in enumerate(sizes) for _ in range(size)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    sampler = ClassBatchSampler(labels, classes, per_class, seed)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    met: Counter[int] = Counter()
    for batch in batches:
        counts = Counter(labels[batch].tolist())
        assert len(counts) == classes
        assert set(counts.values()) == {per_class}
        met.update(counts.keys())
        for label in counts:
            images = [index for index in batch if labels[index] == label]
            if sizes[(label + 20) // 10] >= per_class:
                assert len(set(images)) == per_class
    assert len(met) == len(sizes)
    assert max(met.values()) - min(met.values()) <= 1


def test_images_of_a_class_come_once_before_any_comes_twice() -> None:
    labels = torch.arange(4).repeat_interleave(7)
    drawn = Counter(index for batch in ClassBatchSampler(labels, 2, 3, 0) for index in batch)
    # 4 batches of 2 classes give each class 2 draws of 3: 6 of its 7 images.
    assert len(drawn) == 24
    assert set(drawn.values()) == {1}


def test_epoch_length_follows_the_images_unless_classes_need_more() -> None:
    assert len(ClassBatchSampler(torch.arange(4).repeat_interleave(20), 2, 4, 0)) == 10
    assert len(ClassBatchSampler(torch.arange(10).repeat_interleave(2), 3, 4, 0)) == 4


def test_order_depends_on_seed_and_epoch_alone() -> None:
    labels = torch.arange(6).repeat_interleave(5)

    def batches(seed: int, epoch: int) -> list[list[int]]:
        sampler = ClassBatchSampler(labels, 3, 2, seed)
        sampler.set_epoch(epoch)
        torch.manual_seed(seed + epoch)
        assert list(sampler) == list(sampler)
        return list(sampler)

    assert batches(1, 2) == batches(1, 2)
    orders = [batches(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


@settings(max_examples=30, deadline=None)
@given(
    world_size=st.integers(1, 5),
    classes=st.integers(1, 6),
    per_class=st.integers(1, 5),
    start=st.integers(0, 3),
)
def test_shards_make_up_the_batches_of_one_process(world_size: int, classes: int, per_class: int, start: int) -> None:
    labels = torch.arange(6).repeat_interleave(7)
    world_size = min(world_size, classes * per_class)
    alone = ClassBatchSampler(labels, classes, per_class, 1)
    ranks = [
        ClassBatchSampler(labels, classes, per_class, 1, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    for sampler in (alone, *ranks):
        sampler.set_epoch(2, start)
        assert len(sampler) == len(alone)
    parts = [list(sampler) for sampler in ranks]
    joined = [[index for shard in shards for index in shard] for shards in zip(*parts, strict=True)]
    assert joined == list(alone)
    for shards in zip(*parts, strict=True):
        sizes = [len(shard) for shard in shards]
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1
        if classes % world_size == 0:
            met = [set(labels[shard].tolist()) for shard in shards]
            assert sum(len(each) for each in met) == len(set().union(*met)) == classes


def test_start_goes_on_in_the_middle_of_an_epoch() -> None:
    sampler = ClassBatchSampler(torch.arange(6).repeat_interleave(5), 3, 2, 4)
    sampler.set_epoch(3)
    whole = list(sampler)
    for start in range(len(whole) + 2):
        sampler.set_epoch(3, start)
        assert list(sampler) == whole[start:]
        assert len(sampler) == len(whole)


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    list(ClassBatchSampler([0, 0, 1, 1], 2, 2, 0))
    assert torch.equal(before, torch.get_rng_state())


def test_small_class_is_drawn_with_replacement() -> None:
    (batch,) = ClassBatchSampler([0, 0, 0, 0, 1], classes=2, per_class=4, seed=0)
    assert sorted(batch) == [0, 1, 2, 3, 4, 4, 4, 4]


def test_serves_a_data_loader() -> None:
    labels = torch.arange(4).repeat_interleave(6)
    loader = DataLoader(TensorDataset(labels), batch_sampler=ClassBatchSampler(labels, 2, 3, 0))
    batches = [batch for (batch,) in loader]
    assert len(loader) == len(batches) == 4
    assert all(torch.unique(batch, return_counts=True)[1].tolist() == [3, 3] for batch in batches)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0, 0, 1, 1], 3, 2), ValueError, "classes: expected at most the 2 classes of the labels, got 3"),
        (([], 1, 2), ValueError, "classes: expected at most the 0 classes"),
        (([0, 1], 0, 2), ValueError, "classes: expected at least 1, got 0"),
        (([0, 1], 1, 0), ValueError, "per_class: expected at least 1, got 0"),
        (([0, 1], 1, 1, -1), ValueError, "seed: expected at least 0, got -1"),
        (([0.5, 1.0], 1, 1), TypeError, "labels: expected integers"),
        (([0, 1], 1.0, 1), TypeError, "classes: expected an integer, got float"),
        (([0, 1], 1, 1.0), TypeError, "per_class: expected an integer, got float"),
        (([0, 1], 1, 1, 0.5), TypeError, "seed: expected an integer, got float"),
        ((["a", "b"], 1, 1), TypeError, r"labels: expected integers \[N\], got list of others"),
        ((None, 1, 1), TypeError, r"labels: expected integers \[N\], got NoneType"),
        (([[0, 1]], 1, 1), ValueError, r"labels: expected shape \[N\], got \[1, 2\]"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple[object, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ClassBatchSampler(*arguments)


@pytest.mark.parametrize(("arguments", "name"), [((-1,), "epoch"), ((0, -1), "start")])
def test_negative_epoch_and_start_are_refused(arguments: tuple[int, ...], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected at least 0, got -1"):
        ClassBatchSampler([0, 1], 1, 1).set_epoch(*arguments)


def test_more_processes_than_images_of_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="world_size: expected at most the 2 images of a batch, got 3"):
        ClassBatchSampler([0, 0, 1, 1], 1, 2, rank=0, world_size=3)


def test_repr_names_the_options() -> None:
    sampler = ClassBatchSampler([0, 0, 1, 1], 1, 2, 5)
    assert repr(sampler) == "ClassBatchSampler(classes=1, per_class=2, seed=5, rank=0, world_size=1)"
