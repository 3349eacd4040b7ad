"""Tests of the memory of earlier batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from loss_cases import assert_equal, batch, peer, value_and_gradients
from torch import Tensor

from mdprop_ext.losses import (
    BatchHardMiner,
    ContrastiveLoss,
    CrossBatchMemory,
    MultiSimilarityLoss,
    MultiSimilarityMiner,
    ProxyAnchorLoss,
    TripletMarginLoss,
    all_pairs,
)

SIZE, DIMENSION = 20, 5


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of several sizes, that fill the queue, wrap around its end and come out even."""
    for step, count in enumerate([8, 8, 8, 5, 20, 1, 10, 8]):
        yield batch([(step + index) % 3 for index in range(count)], seed=step)


def memory(loss: Any = None, size: int = SIZE, **options: Any) -> CrossBatchMemory:
    return CrossBatchMemory(loss or ContrastiveLoss(), size, DIMENSION, **options)


def pairs_of_both() -> dict[str, Callable[[], tuple[Any, Any]]]:
    """Memories of this package and of the other one, around the same."""

    def theirs(loss: Any, miner: Any = None) -> Any:
        return peer("losses").CrossBatchMemory(loss, DIMENSION, SIZE, miner=miner)

    return {
        "contrastive": lambda: (memory(), theirs(peer("losses").ContrastiveLoss())),
        "triplet": lambda: (memory(TripletMarginLoss()), theirs(peer("losses").TripletMarginLoss())),
        "mined": lambda: (
            memory(TripletMarginLoss(), miner=BatchHardMiner()),
            theirs(peer("losses").TripletMarginLoss(), peer("miners").BatchHardMiner()),
        ),
        "their loss and miner in ours": lambda: (
            memory(peer("losses").NTXentLoss(), miner=peer("miners").MultiSimilarityMiner()),
            theirs(peer("losses").NTXentLoss(), peer("miners").MultiSimilarityMiner()),
        ),
        "our loss and miner in theirs": lambda: (
            memory(MultiSimilarityLoss(), miner=MultiSimilarityMiner()),
            theirs(MultiSimilarityLoss(), MultiSimilarityMiner()),
        ),
    }


@pytest.mark.parametrize("case", pairs_of_both())
def test_equals_pytorch_metric_learning(case: str) -> None:
    ours, theirs = pairs_of_both()[case]()
    ours = ours.double()
    for embeddings, labels in batches():
        assert_equal(
            value_and_gradients(lambda e, y=labels: ours(e, y), embeddings),
            value_and_gradients(lambda e, y=labels: theirs(e, y), embeddings),
        )
        assert torch.equal(ours.embedding_memory, theirs.embedding_memory)
        assert torch.equal(ours.label_memory, theirs.label_memory)


def test_queue_holds_the_latest_embeddings() -> None:
    queue, seen = memory(), []
    for embeddings, labels in batches():
        queue(embeddings.float(), labels)
        seen += embeddings.float().tolist()
        latest = sorted(seen[-SIZE:])
        assert sorted(queue.embedding_memory[: len(latest)].tolist()) == latest
    assert int(queue.stored) == len(seen)


def test_checkpoint_continues_the_queue() -> None:
    original, given = memory(warm_up=1), list(batches())
    for embeddings, labels in given[:4]:
        original(embeddings, labels)
    restored = memory(warm_up=1)
    restored.load_state_dict(original.state_dict())
    for embeddings, labels in given[4:]:
        assert torch.equal(original(embeddings, labels), restored(embeddings, labels))


def test_warm_up_and_evaluation_leave_the_queue_empty() -> None:
    queue, loss = memory(warm_up=2), ContrastiveLoss()
    given = list(batches())
    for embeddings, labels in given[:2]:
        assert torch.equal(queue(embeddings, labels), loss(embeddings, labels))
    queue.eval()
    assert torch.equal(queue(*given[2]), loss(*given[2]))
    assert int(queue.stored) == 0
    queue.train()
    queue(*given[2])
    assert int(queue.stored) == len(given[2][1])


def test_miner_serves_the_warm_up_too() -> None:
    embeddings, labels = batch([0, 0, 1, 1])
    miner, loss = BatchHardMiner(), TripletMarginLoss()
    value = memory(loss, miner=miner, warm_up=1)(embeddings, labels)
    assert torch.equal(value, loss(embeddings, labels, miner(embeddings, labels)))


def test_batch_meets_itself_but_no_image_itself() -> None:
    embeddings, labels = batch([0, 0, 1, 1])
    loss = ContrastiveLoss()
    expected = loss(embeddings, labels, all_pairs(labels), embeddings.detach(), labels)
    assert torch.equal(memory(loss).double()(embeddings, labels), expected)


def test_two_calls_before_one_backward() -> None:
    # This loss keeps the queue itself for its backward pass.
    queue, leaf = memory(ContrastiveLoss(normalize=False), size=8), torch.randn(8, DIMENSION, requires_grad=True)
    labels = torch.arange(8) // 2
    total = queue(leaf, labels) + queue(leaf * 2, labels)
    total.backward()
    assert leaf.grad.isfinite().all()


class LossByClassWeights(ContrastiveLoss):
    """A loss whose backward pass needs the labels of the queue."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.tensor([1.0, 2.0], requires_grad=True)

    def forward(self, embeddings: Tensor, labels: Tensor, *others: Any) -> Tensor:
        return super().forward(embeddings, labels, *others) * self.weights[others[-1]].sum()


def test_labels_of_the_queue_may_wait_for_the_backward_pass() -> None:
    loss = LossByClassWeights()
    queue = memory(loss, size=4)
    zeros, ones = batch([0, 0], seed=1), batch([1, 1, 1, 1], seed=2)
    total = queue(*zeros) + 0 * queue(*ones)
    total.backward()
    assert loss.weights.grad[0] > 0
    assert loss.weights.grad[1] == 0


def test_half_types_and_autocast_leave_the_queue_in_float32() -> None:
    embeddings, labels = batch([0, 0, 1, 1])
    for loss in (ContrastiveLoss(), peer("losses").MultiSimilarityLoss()):
        inside, outside = memory(loss), memory(loss)
        for _ in range(2):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                value = inside(embeddings.bfloat16(), labels)
            assert torch.equal(value, outside(embeddings.bfloat16().float(), labels))
        assert inside.embedding_memory.dtype == value.dtype == torch.float32


def test_reset_empties_the_queue() -> None:
    queue = memory(warm_up=1)
    first = [queue(*each).item() for each in itertools.islice(batches(), 3)]
    queue.reset()
    assert [queue(*each).item() for each in itertools.islice(batches(), 3)] == first


def test_repr_names_the_options() -> None:
    queue = memory(miner=BatchHardMiner())
    queue(*batch([0, 0, 1]))
    assert "size=20, embedding_dim=5, warm_up=0, stored=3, miner=BatchHardMiner(normalize=True)" in repr(queue)


@pytest.mark.parametrize("count_and_width", [(21, 5), (4, 6)])
def test_bad_batches_are_named(count_and_width: tuple[int, int]) -> None:
    count, width = count_and_width
    with pytest.raises(ValueError, match=rf"embeddings: expected shape \[N, 5\], N <= 20, got \[{count}, {width}\]"):
        memory()(torch.zeros(count, width), torch.zeros(count, dtype=torch.int64))


def test_losses_of_proxies_are_refused() -> None:
    with pytest.raises(TypeError, match="loss: expected a loss of pairs or triplets, got ProxyAnchorLoss"):
        memory(ProxyAnchorLoss(4, DIMENSION))


@pytest.mark.parametrize(
    ("name", "lacking"), [("FastAPLoss", "references"), ("SmoothAPLoss", "references"), ("PNPLoss", "pairs")]
)
def test_their_losses_that_cannot_look_into_a_memory_are_refused(name: str, lacking: str) -> None:
    queue = memory(getattr(peer("losses"), name)())
    with pytest.raises(ValueError, match=f"^loss: {name} takes no {lacking}, which CrossBatchMemory gives it$"):
        queue(*batch([0, 0, 1, 1]))


def test_classes_are_no_instances() -> None:
    with pytest.raises(TypeError, match=r"miner: expected an instance such as BatchHardMiner\(\), got the class"):
        memory(miner=BatchHardMiner)
    with pytest.raises(TypeError, match=r"loss: expected an instance such as ContrastiveLoss\(\), got the class"):
        memory(ContrastiveLoss)


def test_a_size_that_is_no_integer_is_refused() -> None:
    with pytest.raises(TypeError, match="size: expected an integer, got float"):
        memory(size=20.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0, "embedding_dim": 2}, "size: expected at least 1, got 0"),
        ({"size": 2, "embedding_dim": 0}, "embedding_dim: expected at least 1, got 0"),
        ({"size": 2, "embedding_dim": 2, "warm_up": -1}, "warm_up: expected at least 0, got -1"),
    ],
)
def test_bad_options_are_named(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CrossBatchMemory(ContrastiveLoss(), **arguments)
