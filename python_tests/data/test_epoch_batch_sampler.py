"""Tests of the sampler of whole epochs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from mdprop_ext.data import EpochBatchSampler


@given(count=st.integers(1, 60), batch_size=st.integers(1, 70), seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_every_image_comes_once_in_batches_of_about_one_size(
    count: int, batch_size: int, seed: int, epoch: int
) -> None:
    sampler = EpochBatchSampler(count, batch_size, seed)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler) == -(-count // batch_size)
    assert sorted(index for batch in batches for index in batch) == list(range(count))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


@given(count=st.integers(1, 60), batch_size=st.integers(1, 60), seed=st.integers(0, 9))
def test_drop_last_keeps_batches_exact(count: int, batch_size: int, seed: int) -> None:
    batch_size = min(batch_size, count)
    batches = list(EpochBatchSampler(count, batch_size, seed, drop_last=True))
    assert len(batches) == count // batch_size
    assert {len(batch) for batch in batches} == {batch_size}
    seen = [index for batch in batches for index in batch]
    assert len(set(seen)) == len(seen)


def test_other_images_are_dropped_in_other_epochs() -> None:
    sampler = EpochBatchSampler(10, 4, drop_last=True)
    seen = set()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        seen |= {index for batch in sampler for index in batch}
    assert seen == set(range(10))


@given(
    world_size=st.integers(1, 4),
    count=st.integers(4, 60),
    batch_size=st.integers(8, 40),
    drop_last=st.booleans(),
    start=st.integers(0, 3),
)
def test_shards_make_up_the_batches_of_one_process(
    world_size: int, count: int, batch_size: int, drop_last: bool, start: int
) -> None:
    batch_size = min(batch_size, count) if drop_last else batch_size
    alone = EpochBatchSampler(count, batch_size, 3, drop_last=drop_last)
    ranks = [
        EpochBatchSampler(count, batch_size, 3, drop_last=drop_last, rank=rank, world_size=world_size)
        for rank in range(world_size)
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


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def batches(seed: int, epoch: int) -> list[list[int]]:
        sampler = EpochBatchSampler(20, 6, seed)
        sampler.set_epoch(epoch)
        torch.manual_seed(seed + epoch)
        assert list(sampler) == list(sampler)
        return list(sampler)

    assert batches(1, 2) == batches(1, 2)
    orders = [batches(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_start_goes_on_in_the_middle_of_an_epoch() -> None:
    sampler = EpochBatchSampler(20, 6, 1)
    sampler.set_epoch(3)
    whole = list(sampler)
    for start in range(len(whole) + 2):
        sampler.set_epoch(3, start)
        assert list(sampler) == whole[start:]
        assert len(sampler) == len(whole)


def test_serves_a_data_loader() -> None:
    images = torch.arange(10)
    loader = DataLoader(TensorDataset(images), batch_sampler=EpochBatchSampler(10, 4))
    batches = [batch for (batch,) in loader]
    assert len(loader) == len(batches) == 3
    assert torch.equal(torch.cat(batches).sort().values, images)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 1), {}, "count: expected at least 1, got 0"),
        ((4, 0), {}, "batch_size: expected at least 1, got 0"),
        ((4, 2, -1), {}, "seed: expected at least 0, got -1"),
        ((4, 5), {"drop_last": True}, "batch_size: expected at most the 4 images, got 5"),
        ((4, 3), {"rank": 0, "world_size": 2}, "batch_size: expected at least 4, got 3"),
        ((4, 1), {"rank": 0, "world_size": 2, "drop_last": True}, "batch_size: expected at least 2, got 1"),
        ((4, 4), {"rank": 2, "world_size": 2}, "rank: expected 0 to 1, got 2"),
        ((4, 4), {"rank": 0, "world_size": 0}, "world_size: expected at least 1, got 0"),
        ((4, 4), {"rank": 0}, "world_size: expected rank and world_size together, got None"),
        ((4, 4), {"world_size": 2}, "rank: expected rank and world_size together, got None"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple[int, ...], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EpochBatchSampler(*arguments, **options)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"count": 4.0}, "count"),
        ({"batch_size": 2.0}, "batch_size"),
        ({"seed": 0.5}, "seed"),
        ({"rank": 0.0}, "rank"),
        ({"world_size": 1.0}, "world_size"),
    ],
)
def test_numbers_that_are_no_integers_are_refused(arguments: dict[str, float], name: str) -> None:
    with pytest.raises(TypeError, match=f"{name}: expected an integer, got float"):
        EpochBatchSampler(**{"count": 4, "batch_size": 2, "rank": 0, "world_size": 1, **arguments})


@pytest.mark.parametrize(("arguments", "name"), [((-1,), "epoch"), ((0, -1), "start")])
def test_negative_epoch_and_start_are_refused(arguments: tuple[int, ...], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected at least 0, got -1"):
        EpochBatchSampler(4, 2).set_epoch(*arguments)


def test_repr_names_the_options() -> None:
    assert repr(EpochBatchSampler(10, 4)) == "EpochBatchSampler(10, 4, seed=0, drop_last=False, rank=0, world_size=1)"
