"""Tests of the spectral decay."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
from torch import Tensor

from mdprop_ext.metrics import spectral_decay


def plain_decay(embeddings: Tensor, mode: int) -> float:
    """The definition in numpy."""
    values = numpy.linalg.svd(embeddings.double().numpy(), compute_uv=False)[abs(mode) - 1 :]
    shares = values / values.sum()
    uniform = 1 / len(shares)
    terms = uniform * numpy.log(uniform / shares) if mode > 0 else shares * numpy.log(shares / uniform)
    return float(terms.sum())


@pytest.mark.parametrize("mode", [1, 2, 5, -1, -3])
@pytest.mark.parametrize("shape", [(40, 6), (6, 40), (6, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_definition(shape: tuple[int, int], mode: int, dtype: torch.dtype) -> None:
    embeddings = torch.randn(shape, generator=torch.Generator().manual_seed(shape[0]), dtype=dtype)
    assert spectral_decay(embeddings, mode) == pytest.approx(plain_decay(embeddings, mode), rel=1e-9, abs=1e-12)


def test_worked_example() -> None:
    # Singular values 3 and 1: shares 3/4 and 1/4.
    embeddings = torch.diag(torch.tensor([3.0, 1.0]))
    assert spectral_decay(embeddings) == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2))
    assert spectral_decay(embeddings, -1) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert spectral_decay(embeddings, 2) == 0


@pytest.mark.parametrize("mode", [1, 2, -1])
def test_flat_spectrum_has_no_decay(mode: int) -> None:
    assert spectral_decay(torch.eye(8).repeat(5, 1), mode) == pytest.approx(0, abs=1e-12)


def test_scale_does_not_matter() -> None:
    embeddings = torch.randn(30, 5, generator=torch.Generator().manual_seed(2))
    assert spectral_decay(embeddings * 64) == pytest.approx(spectral_decay(embeddings), rel=1e-12)


def test_unused_direction_gives_a_finite_value() -> None:
    embeddings = torch.randn(30, 5, generator=torch.Generator().manual_seed(3))
    copied = torch.cat([embeddings, embeddings[:, :1]], 1)
    empty = torch.cat([embeddings, torch.zeros(30, 1)], 1)
    full = spectral_decay(torch.randn(30, 6, generator=torch.Generator().manual_seed(4)))
    for unused in (copied, empty):
        assert full + 1 < spectral_decay(unused) < -math.log(torch.finfo(torch.float32).eps)
    assert math.isfinite(spectral_decay(empty, -1))


@pytest.mark.parametrize(
    ("embeddings", "mode", "error", "message"),
    [
        (torch.ones(4, 3), 0, ValueError, "mode: expected an absolute value from 1 to 3, got 0"),
        (torch.ones(4, 3), -4, ValueError, "mode: .* got -4"),
        (torch.ones(4, 3), 1.5, TypeError, "mode: expected an integer, got float"),
        (torch.zeros(4, 3), 1, ValueError, "embeddings: expected a value other than 0"),
        (torch.full((4, 3), math.nan), 1, ValueError, "embeddings: expected finite values"),
        (torch.ones(4), 1, ValueError, r"embeddings: expected shape \[N, D\]"),
        (torch.ones(4, 3, dtype=torch.int64), 1, TypeError, "embeddings: expected a floating-point tensor"),
    ],
)
def test_bad_arguments_are_named(embeddings: Tensor, mode: int, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        spectral_decay(embeddings, mode)
