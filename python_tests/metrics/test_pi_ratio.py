"""Tests of the embedding space density."""

from __future__ import annotations

import itertools
import math
from statistics import mean

import pytest
import torch
from torch import Tensor

from mdprop_ext.metrics import pi_ratio


def loop_ratio(embeddings: Tensor, labels: Tensor) -> float:
    """The definition, pair by pair."""
    unit = [row / row.norm() for row in embeddings.double()]
    groups = [[unit[i] for i in range(len(unit)) if labels[i] == label] for label in sorted(set(labels.tolist()))]
    intra = mean(
        mean(1 - float(a @ b) for a, b in itertools.combinations(group, 2)) for group in groups if len(group) > 1
    )
    means = [torch.stack(group).mean(0) for group in groups]
    inter = mean(1 - float(a @ b / a.norm() / b.norm()) for a, b in itertools.combinations(means, 2))
    return intra / inter


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_definition(seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(40, 6, generator=generator).to(dtype) * 3
    labels = torch.randint(-4, 5, (40,), generator=generator)
    assert pi_ratio(embeddings, labels) == pytest.approx(loop_ratio(embeddings, labels), rel=1e-12)


def test_class_of_one_image_counts_between_classes_only() -> None:
    embeddings = torch.tensor([[1.0, 0], [0, 1], [-1, -1]])
    # Within: 1. Between: the means (1, 1) and (-1, -1) are opposite, at distance 2.
    assert pi_ratio(embeddings, torch.tensor([5, 5, 8])) == pytest.approx(0.5)


def test_tight_classes_are_resolved() -> None:
    angle = 1e-4
    rows = [[math.cos(a), math.sin(a)] for a in (0, angle, math.pi, math.pi + angle)]
    ratio = pi_ratio(torch.tensor(rows, dtype=torch.float64), torch.tensor([0, 0, 1, 1]))
    assert ratio == pytest.approx((1 - math.cos(angle)) / 2, rel=1e-6)


def test_equal_images_are_at_distance_zero_whatever_the_rounding() -> None:
    # Unit vectors of (1, 1, 1) in float64 are a little too long.
    embeddings = torch.tensor([[1.0, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 0]])
    assert pi_ratio(embeddings, torch.tensor([0, 0, 0, 1])) == 0


def test_zero_vector_is_at_distance_one() -> None:
    embeddings = torch.tensor([[1.0, 0], [0, 0], [0, 1], [0, 1]])
    assert pi_ratio(embeddings, torch.tensor([0, 0, 1, 1])) == pytest.approx(0.5)


def test_collapsed_classes_give_infinity() -> None:
    embeddings = torch.tensor([[1.0, 1], [1, -1], [1, 1], [1, -1]])
    assert pi_ratio(embeddings, torch.tensor([0, 0, 1, 1])) > 1e12


@pytest.mark.parametrize(
    ("embeddings", "labels", "error", "message"),
    [
        (torch.ones(3, 2), torch.tensor([0, 0, 0]), ValueError, "labels: expected two classes"),
        (torch.ones(3, 2), torch.tensor([0, 1, 2]), ValueError, "labels: expected two classes, one with two images"),
        (torch.ones(3, 2) * math.nan, torch.tensor([0, 0, 1]), ValueError, "embeddings: expected finite values"),
        (torch.ones(3, 2), torch.tensor([0, 1]), ValueError, r"labels: expected shape \[3\], got \[2\]"),
        (torch.ones(3), torch.tensor([0, 0, 1]), ValueError, r"embeddings: expected shape \[N, D\]"),
        (torch.ones(3, 2), torch.ones(3), TypeError, "labels: expected an integer tensor"),
    ],
)
def test_bad_arguments_are_named(embeddings: Tensor, labels: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pi_ratio(embeddings, labels)
