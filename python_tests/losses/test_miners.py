"""Tests of the miners."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loss_cases import LABELS, batch, peer

from mdprop_ext.losses import (
    BatchHardMiner,
    IndicesTuple,
    MinedLoss,
    Miner,
    MultiSimilarityMiner,
    TripletMarginLoss,
    TripletMarginMiner,
)


def rows(indices: IndicesTuple) -> list[list[int]]:
    return sorted(torch.stack(list(indices), 1).tolist())


def peer_of(miner: Miner) -> object:
    miners, distances = peer("miners"), peer("distances")
    if isinstance(miner, MultiSimilarityMiner):
        return miners.MultiSimilarityMiner(epsilon=miner.margin)
    distance = distances.LpDistance(normalize_embeddings=miner.normalize)
    if isinstance(miner, BatchHardMiner):
        return miners.BatchHardMiner(distance=distance)
    return miners.TripletMarginMiner(margin=miner.margin, type_of_triplets=miner.kind, distance=distance)


MINERS = [
    BatchHardMiner(),
    BatchHardMiner(normalize=False),
    TripletMarginMiner(),
    TripletMarginMiner(margin=0.5, kind="hard"),
    TripletMarginMiner(margin=0.5, kind="semihard", normalize=False),
    MultiSimilarityMiner(),
]
EVERY_MINER = pytest.mark.parametrize("miner", MINERS, ids=repr)


@EVERY_MINER
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("with_references", [False, True])
def test_equals_pytorch_metric_learning(miner: Miner, labels: list[int], with_references: bool) -> None:
    embeddings, targets = batch(labels)
    references = batch([0, 1, 2, 3] * 4, seed=1) if with_references else ()
    ours, theirs = miner(embeddings, targets, *references), peer_of(miner)(embeddings, targets, *references)
    if isinstance(miner, MultiSimilarityMiner):
        # Their miner keeps pairs of anchors that have no pair of the other kind; no loss of ours counts these.
        both = set(theirs[0].tolist()) & set(theirs[2].tolist())
        for part in (slice(0, 2), slice(2, 4)):
            assert [r for r in rows(ours[part]) if r[0] in both] == [r for r in rows(theirs[part]) if r[0] in both]
    else:
        assert rows(ours) == rows(theirs)


@EVERY_MINER
def test_mining_is_in_float32_and_without_gradient(miner: Miner) -> None:
    embeddings, labels = batch(LABELS["balanced"])
    half = embeddings.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = miner(half, labels)
    assert all(index.dtype == torch.int64 for index in inside)
    for one, other in zip(inside, miner(half.detach().float(), labels), strict=True):
        assert torch.equal(one, other)


class StateMiner(Miner):
    """Notes how it is called."""

    def _mine(self, batch: Any) -> IndicesTuple:
        self.state = (batch.embeddings.dtype, torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"))
        return ()


def test_a_miner_of_ones_own_sees_full_precision_and_no_graph() -> None:
    embeddings, labels = batch(LABELS["balanced"])
    miner = StateMiner()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        miner(embeddings.bfloat16(), labels)
    assert miner.state == (torch.float32, False, False)


def test_kinds_part_the_violating_triplets() -> None:
    embeddings, labels = batch(LABELS["balanced"])
    by_kind = {kind: rows(TripletMarginMiner(margin=0.4, kind=kind)(embeddings, labels)) for kind in ("hard", "all")}
    semihard = rows(TripletMarginMiner(margin=0.4, kind="semihard")(embeddings, labels))
    assert by_kind["hard"]
    assert semihard
    assert sorted(by_kind["hard"] + semihard) == by_kind["all"]


@EVERY_MINER
@pytest.mark.parametrize("rows_of_nan", [slice(3, 4), slice(None)])
def test_a_nan_shows_in_the_loss_of_what_was_mined(miner: Miner, rows_of_nan: slice) -> None:
    embeddings, labels = batch(LABELS["balanced"])
    embeddings[rows_of_nan] = torch.nan
    assert MinedLoss(TripletMarginLoss(margin=0.5), miner)(embeddings, labels).isnan()


def test_batch_hard_on_a_line() -> None:
    line = torch.tensor([[0.0], [1.0], [3.0], [1.5], [9.0]])
    triplets = BatchHardMiner(normalize=False)(line, torch.tensor([0, 0, 0, 1, 2]))
    assert rows(triplets) == [[0, 2, 3], [1, 2, 3], [2, 0, 3]]


def test_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="kind: expected one of all, hard, semihard, got 'easy'"):
        TripletMarginMiner(kind="easy")
