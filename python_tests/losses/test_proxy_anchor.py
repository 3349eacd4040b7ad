"""Tests of the proxy-anchor loss."""

from __future__ import annotations

import math

import pytest
import torch
from loss_cases import LABELS, assert_equal, batch, peer, value_and_gradients

from mdprop_ext.losses import ProxyAnchorLoss


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize(("margin", "alpha"), [(0.1, 32.0), (-0.2, 2.0)])
def test_equals_pytorch_metric_learning(labels: list[int], margin: float, alpha: float) -> None:
    embeddings, targets = batch(labels)
    ours = ProxyAnchorLoss(12, 5, margin=margin, alpha=alpha).double()
    theirs = peer("losses").ProxyAnchorLoss(12, 5, margin=margin, alpha=alpha)
    theirs.proxies.data = ours.proxies.detach().clone()
    assert_equal(
        value_and_gradients(lambda e: ours(e, targets), embeddings, ours),
        value_and_gradients(lambda e: theirs(e, targets), embeddings, theirs),
    )


def test_one_sample_on_its_proxy() -> None:
    loss = ProxyAnchorLoss(3, 3, margin=0.25, alpha=4.0)
    with torch.no_grad():
        loss.proxies.copy_(torch.eye(3))
    # One of three classes is there; the other two push with a cosine of 0.
    expected = math.log1p(math.exp(-4 * 0.75)) + 2 * math.log1p(math.exp(4 * 0.25)) / 3
    assert loss(torch.eye(3)[:1], torch.tensor([0])).item() == pytest.approx(expected, rel=1e-6)


def test_bad_alpha_is_named() -> None:
    with pytest.raises(ValueError, match="alpha: expected a number above 0, got 0"):
        ProxyAnchorLoss(3, 2, alpha=0)
