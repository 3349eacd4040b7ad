"""Tests of the triplet loss."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from loss_cases import LABELS, assert_equal, batch, peer, value_and_gradients

from mdprop_ext.losses import TripletMarginLoss


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("swap", "smooth"), [*itertools.product([False, True], repeat=2)])
def test_equals_pytorch_metric_learning(labels: list[int], normalize: bool, swap: bool, smooth: bool) -> None:
    losses, distances = peer("losses"), peer("distances")
    embeddings, targets = batch(labels)
    ours = TripletMarginLoss(margin=0.3, swap=swap, smooth=smooth, normalize=normalize)
    theirs = losses.TripletMarginLoss(
        margin=0.3,
        swap=swap,
        smooth_loss=smooth,
        distance=distances.LpDistance(normalize_embeddings=normalize),
    )
    assert_equal(
        value_and_gradients(lambda e: ours(e, targets), embeddings),
        value_and_gradients(lambda e: theirs(e, targets), embeddings),
    )


def test_equals_pytorch_metric_learning_on_given_triplets_and_references() -> None:
    losses = peer("losses")
    embeddings, targets = batch(LABELS["balanced"])
    references, reference_labels = batch([0, 1, 2, 3] * 4, seed=1)
    pairs = (torch.tensor([0, 4]), torch.tensor([1, 5]), torch.tensor([0, 0, 4]), torch.tensor([3, 9, 0]))
    ours, theirs = TripletMarginLoss(swap=True), losses.TripletMarginLoss(swap=True)
    for options in (
        {"indices_tuple": pairs},
        {"ref_emb": references, "ref_labels": reference_labels},
        {"indices_tuple": pairs, "ref_emb": references, "ref_labels": reference_labels},
    ):
        # Swapped distances among references are not theirs where references are given: they read the wrong matrix.
        swap = "ref_emb" not in options
        ours.swap = theirs.swap = swap
        assert_equal(
            value_and_gradients(lambda e, options=options: ours(e, targets, **options), embeddings),
            value_and_gradients(lambda e, options=options: theirs(e, targets, **options), embeddings),
        )


def test_swap_measures_from_the_positive_to_the_negative_reference() -> None:
    anchor, references = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 0.0], [3.0, 1.0]])
    arguments = (anchor, torch.tensor([0]), None, references, torch.tensor([0, 1]))
    plain = TripletMarginLoss(margin=1, normalize=False)(*arguments)
    swapped = TripletMarginLoss(margin=1, normalize=False, swap=True)(*arguments)
    torch.testing.assert_close(plain.item(), 3 - math.sqrt(10) + 1)
    assert swapped.item() == 3 - 1 + 1


def test_mean_is_over_violating_triplets() -> None:
    line = torch.tensor([[0.0], [1.0], [1.5], [9.0]])
    loss = TripletMarginLoss(margin=0.75, normalize=False)(line, torch.tensor([0, 0, 1, 2]))
    # Of the four triplets 0-1-2 exceeds by 1 - 1.5 + 0.75 and 1-0-2 by 1 - 0.5 + 0.75; the others, with 9, by nothing.
    assert loss.item() == (0.25 + 1.25) / 2
