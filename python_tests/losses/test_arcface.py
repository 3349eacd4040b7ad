"""Tests of the ArcFace loss."""

from __future__ import annotations

import math

import pytest
import torch
from loss_cases import LABELS, assert_equal, batch, peer, value_and_gradients

from mdprop_ext.losses import ArcFaceLoss


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize(("margin", "scale"), [(0.5, 64.0), (0.0, 1.0), (2.0, 8.0)])
def test_equals_pytorch_metric_learning(labels: list[int], margin: float, scale: float) -> None:
    embeddings, targets = batch(labels)
    ours = ArcFaceLoss(12, 5, margin=margin, scale=scale).double()
    theirs = peer("losses").ArcFaceLoss(12, 5, margin=math.degrees(margin), scale=scale)
    theirs.W.data = ours.proxies.detach().T.clone()
    loss, gradient, proxies = value_and_gradients(lambda e: ours(e, targets), embeddings, ours)
    expected, expected_gradient, weights = value_and_gradients(lambda e: theirs(e, targets), embeddings, theirs)
    assert_equal([loss, gradient, proxies], [expected, expected_gradient, weights.T])


def test_own_angle_grows_by_the_margin() -> None:
    loss = ArcFaceLoss(2, 2, margin=0.3, scale=5.0)
    with torch.no_grad():
        loss.proxies.copy_(torch.eye(2))
    angle = 0.4
    embedding = 7 * torch.tensor([[math.cos(angle), math.sin(angle)]])
    expected = math.log1p(math.exp(5 * (math.sin(angle) - math.cos(angle + 0.3))))
    assert loss(embedding, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_gradient_is_finite_on_a_proxy_and_opposite_to_it(sign: int) -> None:
    loss = ArcFaceLoss(3, 2)
    # Their unit vectors have cosines of exactly 1 and -1, where an angle has no slope.
    with torch.no_grad():
        loss.proxies.copy_(torch.tensor([[1.0, 0], [0, 1], [0, -1]]))
    results = value_and_gradients(lambda e: loss(e, torch.tensor([0])), torch.tensor([[2.0 * sign, 0.0]]), loss)
    assert all(result.isfinite().all() for result in results)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": -0.1}, "margin: expected radians from 0 to pi, got -0.1"),
        ({"margin": 28.6}, "margin: expected radians from 0 to pi, got 28.6"),
        ({"scale": 0}, "scale: expected a number above 0, got 0"),
    ],
)
def test_bad_options_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ArcFaceLoss(3, 2, **options)
