"""Tests of the contrastive loss."""

from __future__ import annotations

import pytest
import torch
from loss_cases import LABELS, assert_equal, batch, peer, value_and_gradients

from mdprop_ext.losses import ContrastiveLoss


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("margins", [(0.0, 1.0), (0.4, 0.7)])
def test_equals_pytorch_metric_learning(labels: list[int], normalize: bool, margins: tuple[float, float]) -> None:
    losses, distances = peer("losses"), peer("distances")
    embeddings, targets = batch(labels)
    ours = ContrastiveLoss(positive_margin=margins[0], negative_margin=margins[1], normalize=normalize)
    theirs = losses.ContrastiveLoss(*margins, distance=distances.LpDistance(normalize_embeddings=normalize))
    assert_equal(
        value_and_gradients(lambda e: ours(e, targets), embeddings),
        value_and_gradients(lambda e: theirs(e, targets), embeddings),
    )


def test_equals_pytorch_metric_learning_on_given_triplets_and_references() -> None:
    losses = peer("losses")
    embeddings, targets = batch(LABELS["balanced"])
    references, reference_labels = batch([0, 1, 2, 3] * 4, seed=1)
    triplets = (torch.tensor([0, 0, 5]), torch.tensor([1, 1, 3]), torch.tensor([4, 7, 0]))
    ours, theirs = ContrastiveLoss(negative_margin=1.5), losses.ContrastiveLoss(neg_margin=1.5)
    for options in ({"indices_tuple": triplets}, {"ref_emb": references, "ref_labels": reference_labels}):
        assert_equal(
            value_and_gradients(lambda e, options=options: ours(e, targets, **options), embeddings),
            value_and_gradients(lambda e, options=options: theirs(e, targets, **options), embeddings),
        )


def test_means_are_over_costly_pairs_of_each_kind() -> None:
    line = torch.tensor([[0.0], [1.0], [1.5], [9.0]])
    loss = ContrastiveLoss(positive_margin=0.25, negative_margin=2, normalize=False)
    # Positives 0-1 cost 0.75; negatives 0-2 and 1-2 cost 0.5 and 1.5; those with 9 cost nothing.
    assert loss(line, torch.tensor([0, 0, 1, 2])).item() == 0.75 + 1.0
