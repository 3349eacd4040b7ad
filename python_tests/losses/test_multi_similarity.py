"""Tests of the multi-similarity loss."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mdprop_ext.losses import MultiSimilarityLoss


def loop_loss(embeddings: Tensor, labels: Tensor, alpha: float, beta: float, base: float, margin: float) -> Tensor:
    """The definition, anchor by anchor and pair by pair."""
    unit = embeddings / embeddings.norm(dim=1, keepdim=True)
    similarity = unit @ unit.T
    losses = []
    for anchor in range(len(labels)):
        others = [j for j in range(len(labels)) if j != anchor]
        positives = [similarity[anchor, j] for j in others if labels[j] == labels[anchor]]
        negatives = [similarity[anchor, j] for j in others if labels[j] != labels[anchor]]
        if not positives or not negatives:
            continue
        kept_negatives = [s for s in negatives if s + margin > min(positives)]
        kept_positives = [s for s in positives if s - margin < max(negatives)]
        if not kept_negatives or not kept_positives:
            continue
        positive_sum = sum(torch.exp(-alpha * (s - base)) for s in kept_positives)
        negative_sum = sum(torch.exp(beta * (s - base)) for s in kept_negatives)
        losses.append(torch.log(1 + positive_sum) / alpha + torch.log(1 + negative_sum) / beta)
    return torch.stack(losses).mean() if losses else embeddings.sum() * 0


def sample(seed: int, count: int = 12, classes: int = 4, dimension: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(count, dimension, generator=generator, dtype=torch.float64)
    return embeddings, torch.randint(classes, (count,), generator=generator)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 14),
    classes=st.integers(1, 5),
    margin=st.sampled_from([-0.3, 0.0, 0.1, 1.0]),
    alpha=st.sampled_from([0.5, 2.0]),
)
def test_value_and_gradient_equal_the_plain_loop(
    seed: int, count: int, classes: int, margin: float, alpha: float
) -> None:
    embeddings, labels = sample(seed, count, classes)
    ours, theirs = embeddings.clone().requires_grad_(), embeddings.clone().requires_grad_()
    loss = MultiSimilarityLoss(alpha=alpha, beta=40, base=0.4, margin=margin)(ours, labels)
    expected = loop_loss(theirs, labels, alpha, 40, 0.4, margin)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-11)


def test_gradcheck() -> None:
    embeddings, labels = sample(3, count=8, classes=3)
    loss = MultiSimilarityLoss()
    assert torch.autograd.gradcheck(lambda e: loss(e, labels), (embeddings.requires_grad_(),))


@pytest.mark.parametrize(
    "labels", [[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 1, 1]], ids=["one class", "all alone", "well separated"]
)
def test_no_anchor_kept_gives_zero_with_zero_gradient(labels: list[int]) -> None:
    embeddings = torch.tensor([[1.0, 0], [1, 0], [-1, 0], [-1, 0]], requires_grad=True)
    loss = MultiSimilarityLoss()(embeddings, torch.tensor(labels))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(embeddings.grad, torch.zeros(4, 2))


def test_mean_is_over_kept_anchors_only() -> None:
    mixed = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]], dtype=torch.float64)
    separate = torch.tensor([[0.0, 0, 1], [0, 0, 1]], dtype=torch.float64)
    loss = MultiSimilarityLoss()
    alone = loss(mixed, torch.tensor([0, 0, 1, 1]))
    # The third class is tight and orthogonal to the others: its anchors keep no pair.
    beside = loss(torch.cat([mixed, separate]), torch.tensor([0, 0, 1, 1, 2, 2]))
    expected = math.log1p(math.exp(1)) / 2 + math.log1p(math.exp(20) + 3 * math.exp(-20)) / 40
    torch.testing.assert_close(beside.item(), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(alone.item(), expected, rtol=1e-9, atol=0)


def test_order_of_samples_does_not_matter() -> None:
    embeddings, labels = sample(5, count=20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    loss = MultiSimilarityLoss()
    torch.testing.assert_close(loss(embeddings, labels), loss(embeddings[order], labels[order]), rtol=1e-13, atol=0)


def test_scale_of_embeddings_does_not_matter() -> None:
    embeddings, labels = sample(6)
    loss = MultiSimilarityLoss()
    torch.testing.assert_close(loss(embeddings, labels), loss(embeddings * 37, labels), rtol=1e-12, atol=0)


def test_steep_exponents_stay_finite() -> None:
    embeddings, labels = sample(7)
    embeddings = embeddings.float().requires_grad_()
    loss = MultiSimilarityLoss(alpha=1000, beta=1000)(embeddings, labels)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(embeddings.grad).all()


def test_autocast_computes_in_float32() -> None:
    embeddings, labels = sample(8, count=16)
    embeddings = embeddings.float()
    loss = MultiSimilarityLoss()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(embeddings, labels)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, loss(embeddings, labels))


def test_bfloat16_embeddings_have_bfloat16_gradient() -> None:
    embeddings, labels = sample(9)
    half = embeddings.bfloat16().requires_grad_()
    loss = MultiSimilarityLoss()(half, labels)
    loss.backward()
    assert loss.dtype == torch.float32
    assert half.grad.dtype == torch.bfloat16
    assert torch.equal(loss, MultiSimilarityLoss()(half.detach().float(), labels))


def test_nan_embedding_gives_nan_loss() -> None:
    embeddings, labels = sample(10)
    embeddings[2, 1] = math.nan
    assert MultiSimilarityLoss()(embeddings, labels).isnan()


def test_zero_embedding_has_finite_gradient() -> None:
    embeddings, labels = sample(11)
    embeddings[0] = 0
    embeddings.requires_grad_()
    MultiSimilarityLoss()(embeddings, labels).backward()
    assert torch.isfinite(embeddings.grad).all()


def test_equals_pytorch_metric_learning_where_every_anchor_is_kept() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    miners = pytest.importorskip("pytorch_metric_learning.miners")
    embeddings, labels = sample(12, count=24, classes=4)
    miner = miners.MultiSimilarityMiner(epsilon=0.1)
    pairs = miner(embeddings, labels)
    assert len(set(pairs[0].tolist())) == 24, "their mean runs over all anchors, so all must be kept"
    expected = losses.MultiSimilarityLoss(alpha=2, beta=40, base=0.5)(embeddings, labels, pairs)
    torch.testing.assert_close(MultiSimilarityLoss()(embeddings, labels), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("embeddings", "labels", "error", "message"),
    [
        (
            torch.zeros(2, 3, dtype=torch.int64),
            torch.zeros(2, dtype=torch.int64),
            TypeError,
            "embeddings: expected a fl",
        ),
        (torch.zeros(2, 3), torch.zeros(2), TypeError, "labels: expected an integer"),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int64), ValueError, r"embeddings: .* got \[2\]"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), ValueError, r"embeddings: .* got \[0, 3\]"),
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64), ValueError, r"labels: expected shape \[2\], got \[3\]"),
    ],
)
def test_bad_batches_are_named(embeddings: Tensor, labels: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MultiSimilarityLoss()(embeddings, labels)


@pytest.mark.parametrize("option", ["alpha", "beta"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_bad_options_are_named(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{option}: expected a number above 0"):
        MultiSimilarityLoss(**{option: value})
