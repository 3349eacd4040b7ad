"""Tests of what the losses of pairs and triplets have in common."""

from __future__ import annotations

import math

import pytest
import torch
from loss_cases import LABELS, batch, value_and_gradients
from torch import Tensor

from mdprop_ext.losses import ContrastiveLoss, MultiSimilarityLoss, PairLoss, TripletMarginLoss

LOSSES = [
    MultiSimilarityLoss(),
    TripletMarginLoss(margin=0.5, swap=True),
    TripletMarginLoss(normalize=False, smooth=True),
    ContrastiveLoss(),
    ContrastiveLoss(normalize=False),
]
EVERY_LOSS = pytest.mark.parametrize("loss", LOSSES, ids=repr)


@EVERY_LOSS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_and_autocast_are_computed_in_float32(loss: PairLoss, dtype: torch.dtype) -> None:
    embeddings, labels = batch(LABELS["balanced"])
    half = embeddings.to(dtype).requires_grad_()
    value = loss(half, labels)
    value.backward()
    assert value.dtype == torch.float32
    assert half.grad.dtype == dtype
    assert torch.equal(value, loss(half.detach().float(), labels))
    single = embeddings.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(single, labels)
    assert torch.equal(inside, loss(single, labels))


@EVERY_LOSS
def test_duplicates_and_zero_vectors_have_finite_gradients(loss: PairLoss) -> None:
    embeddings, labels = batch(LABELS["balanced"], duplicates=True)
    embeddings[[0, 6]] = 0
    for vectors in (embeddings, embeddings.float()):
        value, gradient = value_and_gradients(lambda e: loss(e, labels), vectors)
        assert value > 0
        assert gradient.isfinite().all()
        assert gradient.any()


@EVERY_LOSS
def test_equal_embeddings_have_zero_gradient(loss: PairLoss) -> None:
    labels = torch.tensor(LABELS["balanced"])
    _, gradient = value_and_gradients(lambda e: loss(e, labels), torch.ones(12, 4, dtype=torch.float64))
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


@EVERY_LOSS
@pytest.mark.parametrize("labels", [[0, 0], [0, 1], [0]], ids=["no negative", "no positive", "alone"])
def test_without_triplets_the_gradient_is_finite(loss: PairLoss, labels: list[int]) -> None:
    value, gradient = value_and_gradients(lambda e: loss(e, torch.tensor(labels)), torch.eye(len(labels), 3))
    assert value.isfinite()
    assert gradient.isfinite().all()


@EVERY_LOSS
def test_a_nan_shows_in_the_loss(loss: PairLoss) -> None:
    embeddings, labels = batch(LABELS["balanced"])
    embeddings[3, 1] = math.nan
    assert loss(embeddings, labels).isnan()


def test_distances_of_near_points_are_exact() -> None:
    # Their squares are near the rounding error of squared norms.
    embeddings, labels = torch.nn.functional.normalize(batch(list(range(30)))[0]), torch.arange(30)
    pairs = torch.cat([embeddings, embeddings + 3e-4])
    labels = labels.repeat(2)
    for loss in (ContrastiveLoss(negative_margin=0), TripletMarginLoss(margin=10)):
        torch.testing.assert_close(loss(pairs.float(), labels).double(), loss(pairs, labels), rtol=1e-3, atol=0)


@EVERY_LOSS
def test_order_does_not_matter(loss: PairLoss) -> None:
    embeddings, labels = batch(LABELS["shuffled, with classes alone"])
    order = torch.randperm(len(labels))
    torch.testing.assert_close(loss(embeddings, labels), loss(embeddings[order], labels[order]))


@EVERY_LOSS
def test_gradcheck_against_references(loss: PairLoss) -> None:
    embeddings, labels = batch([0, 0, 1, 1], dimension=3)
    references, reference_labels = batch([0, 1, 2, 1, 0], seed=4, dimension=3)

    def compute(anchors: Tensor, others: Tensor) -> Tensor:
        return loss(anchors, labels, None, others, reference_labels)

    assert torch.autograd.gradcheck(compute, (embeddings.requires_grad_(), references.requires_grad_()))


@EVERY_LOSS
def test_references_of_another_precision_are_taken_in_the_higher_one(loss: PairLoss) -> None:
    embeddings, labels = batch(LABELS["balanced"])
    mixed = loss(embeddings.bfloat16(), labels, None, embeddings.float(), labels)
    assert torch.equal(mixed, loss(embeddings.bfloat16().float(), labels, None, embeddings.float(), labels))


@EVERY_LOSS
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.bool])
def test_labels_may_be_of_any_integer_type(loss: PairLoss, dtype: torch.dtype) -> None:
    embeddings, labels = batch([0, 0, 1, 1, 0, 1])
    assert torch.equal(loss(embeddings, labels.to(dtype)), loss(embeddings, labels))


@EVERY_LOSS
def test_the_embeddings_themselves_may_be_references_of_other_labels(loss: PairLoss) -> None:
    embeddings, labels = batch(LABELS["balanced"])
    others = labels.roll(4)
    expected = loss(embeddings, labels, None, embeddings.clone(), others)
    assert torch.equal(loss(embeddings, labels, None, embeddings, others), expected)
    assert torch.equal(loss(embeddings, labels, None, embeddings, labels), loss(embeddings, labels))


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 0], TypeError, "labels: expected a tensor, got list"),
        (torch.zeros(2), TypeError, "labels: expected an integer tensor, got torch.float32"),
        (torch.zeros(2, dtype=torch.complex64), TypeError, "labels: expected an integer tensor, got torch.complex64"),
        (torch.zeros(3, dtype=torch.int64), ValueError, r"labels: expected shape \[2\], got \[3\]"),
        (torch.zeros(2, dtype=torch.int64, device="meta"), ValueError, "labels: expected the device of embeddings"),
    ],
)
def test_bad_labels_are_named(labels: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ContrastiveLoss()(torch.ones(2, 3), labels)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ref_emb": torch.zeros(2, 3)}, ValueError, "ref_labels: expected together with its counterpart"),
        ({"ref_labels": torch.zeros(2, dtype=torch.int64)}, ValueError, "ref_emb: expected together"),
        (
            {"ref_emb": torch.zeros(2, 4), "ref_labels": torch.zeros(2, dtype=torch.int64)},
            ValueError,
            r"ref_emb: expected shape \[M, 3\], got \[2, 4\]",
        ),
        ({"ref_emb": torch.zeros(2, 3), "ref_labels": torch.zeros(2)}, TypeError, "ref_labels: expected an integer"),
        (
            {"ref_emb": torch.zeros(2, 3), "ref_labels": torch.zeros(2, dtype=torch.int64, device="meta")},
            ValueError,
            "ref_labels: expected the device of ref_emb, cpu, got meta",
        ),
        ({"indices_tuple": (torch.zeros(1),) * 2}, ValueError, "indices_tuple: expected 3 .* or 4 .*, got 2"),
    ],
)
@EVERY_LOSS
def test_bad_arguments_are_named(
    loss: PairLoss, arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        loss(torch.ones(2, 3), torch.tensor([0, 0]), **arguments)
