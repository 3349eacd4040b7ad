"""Tests of losses that are joined with a miner."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loss_cases import LABELS, assert_equal, batch, peer, value_and_gradients
from torch import Tensor

from mdprop_ext.losses import (
    ArcFaceLoss,
    BatchHardMiner,
    ContrastiveLoss,
    IndicesTuple,
    MinedLoss,
    MultiSimilarityLoss,
    MultiSimilarityMiner,
    TripletMarginLoss,
    TripletMarginMiner,
    all_pairs,
)

MARGIN = 0.3


def losses_and_miners(ours: bool) -> tuple[list[Any], list[Any]]:
    if ours:
        losses = [TripletMarginLoss(margin=MARGIN), ContrastiveLoss(negative_margin=1.2)]
        return losses, [BatchHardMiner(), TripletMarginMiner(kind="semihard"), MultiSimilarityMiner()]
    losses, miners = peer("losses"), peer("miners")
    return (
        [losses.TripletMarginLoss(margin=MARGIN), losses.ContrastiveLoss(neg_margin=1.2)],
        [
            miners.BatchHardMiner(),
            miners.TripletMarginMiner(type_of_triplets="semihard"),
            miners.MultiSimilarityMiner(),
        ],
    )


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("loss", range(2))
@pytest.mark.parametrize("miner", range(3))
def test_losses_and_miners_of_both_packages_mix(labels: list[int], loss: int, miner: int) -> None:
    embeddings, targets = batch(labels)
    (our_losses, our_miners), (their_losses, their_miners) = losses_and_miners(True), losses_and_miners(False)
    expected = value_and_gradients(
        lambda e: their_losses[loss](e, targets, their_miners[miner](e, targets)), embeddings
    )
    for losses, miners in ((our_losses, our_miners), (our_losses, their_miners), (their_losses, our_miners)):
        mined = MinedLoss(losses[loss], miners[miner])
        assert_equal(value_and_gradients(lambda e, mined=mined: mined(e, targets), embeddings), expected)


def test_multi_similarity_mines_the_same_inside_and_outside() -> None:
    embeddings, labels = batch(LABELS["shuffled, with classes alone"])
    loss = MultiSimilarityLoss(margin=0.2)
    mined = MinedLoss(loss, MultiSimilarityMiner(margin=0.2))
    assert_equal(
        value_and_gradients(lambda e: mined(e, labels), embeddings),
        value_and_gradients(lambda e: loss(e, labels), embeddings),
    )


def test_multi_similarity_of_given_pairs_equals_pytorch_metric_learning() -> None:
    embeddings, labels = batch(LABELS["balanced"])
    pairs = peer("miners").PairMarginMiner(0.5, 1.4)(embeddings, labels)
    counted = torch.tensor(sorted(set(pairs[0].tolist()) & set(pairs[2].tolist())))
    assert len(counted) > 1
    reducer = peer("reducers").DoNothingReducer()
    theirs = peer("losses").MultiSimilarityLoss(alpha=2, beta=40, base=0.5, reducer=reducer)
    assert_equal(
        value_and_gradients(lambda e: MultiSimilarityLoss()(e, labels, pairs), embeddings),
        value_and_gradients(lambda e: theirs(e, labels, pairs)["loss"]["losses"].flatten()[counted].mean(), embeddings),
    )


def test_half_types_and_autocast_leave_their_proxies_in_float32() -> None:
    embeddings, labels = batch(LABELS["balanced"])
    loss = MinedLoss(peer("losses").ProxyAnchorLoss(4, 5), peer("miners").MultiSimilarityMiner())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(embeddings.bfloat16(), labels)
    assert inside.dtype == loss.loss.proxies.dtype == torch.float32
    assert torch.equal(inside, loss(embeddings.bfloat16().float(), labels))


def test_parameters_and_options_show() -> None:
    loss = MinedLoss(peer("losses").ArcFaceLoss(4, 5), BatchHardMiner())
    assert [name for name, _ in loss.named_parameters()] == ["loss.W"]
    assert "(miner): BatchHardMiner(normalize=True)" in repr(loss)


def test_a_miner_of_ones_own_sees_full_precision_and_no_graph() -> None:
    embeddings, labels = batch(LABELS["balanced"])
    seen = []

    def miner(vectors: Tensor, classes: Tensor) -> IndicesTuple:
        seen.append((vectors.dtype, vectors.requires_grad))
        return all_pairs(classes)

    MinedLoss(ContrastiveLoss(), miner)(embeddings.bfloat16().requires_grad_(), labels)
    assert seen == [(torch.float32, False)]


def test_losses_of_proxies_are_refused() -> None:
    with pytest.raises(TypeError, match="loss: expected a loss of pairs or triplets, got ArcFaceLoss"):
        MinedLoss(ArcFaceLoss(4, 5), BatchHardMiner())


@pytest.mark.parametrize("name", ["VICRegLoss", "PNPLoss", "InstanceLoss"])
def test_their_losses_that_take_no_pairs_are_refused(name: str) -> None:
    loss = MinedLoss(getattr(peer("losses"), name)(), BatchHardMiner())
    with pytest.raises(ValueError, match=f"^loss: {name} takes no pairs, which MinedLoss gives it$"):
        loss(*batch(LABELS["balanced"]))


def test_errors_of_a_loss_are_kept() -> None:
    def loss(*arguments: Any) -> Tensor:
        raise ValueError("scale: expected indices_tuple is not supported")

    with pytest.raises(ValueError, match=r"^scale: expected"):
        MinedLoss(loss, BatchHardMiner())(*batch(LABELS["balanced"]))


def test_classes_are_no_instances() -> None:
    with pytest.raises(
        TypeError, match=r"^miner: expected an instance such as BatchHardMiner\(\), got the class Batch"
    ):
        MinedLoss(TripletMarginLoss(), BatchHardMiner)
    with pytest.raises(TypeError, match=r"^loss: expected an instance such as TripletMarginLoss\(\), got the class"):
        MinedLoss(TripletMarginLoss, BatchHardMiner())
    with pytest.raises(TypeError, match=r"^miner: expected a module or function, got str"):
        MinedLoss(TripletMarginLoss(), "batch_hard")


def test_bad_batches_are_named() -> None:
    with pytest.raises(ValueError, match=r"labels: expected shape \[2\], got \[3\]"):
        MinedLoss(TripletMarginLoss(), BatchHardMiner())(torch.zeros(2, 3), torch.tensor([0, 1, 2]))
