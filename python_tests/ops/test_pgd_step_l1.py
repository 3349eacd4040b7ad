"""The l1 projection is the nearest point of ball and box: by enumeration, by optimality conditions, at the extremes."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdprop_ext import ops


def project(point: torch.Tensor, origin: torch.Tensor, radius: float, lower: float, upper: float) -> torch.Tensor:
    """The projection alone, of one sample [M]."""
    rows = point.unsqueeze(0), torch.zeros_like(point).unsqueeze(0), origin.unsqueeze(0)
    return ops.pgd_step(*rows, norm="l1", step=0.0, radius=radius, lower=lower, upper=upper)[0]


def nearest_by_enumeration(
    point: list[float], origin: list[float], radius: float, lower: float, upper: float
) -> list[float]:
    """The nearest point over all faces of ball and box: every value is at a bound, at the origin, or free above or
    below it, and the values either use up the radius or not. The solution is the best feasible candidate of these."""
    best, best_distance = None, float("inf")
    kinds = ("lower", "upper", "origin", "above", "below")
    for face in itertools.product(kinds, repeat=len(point)):
        for tight in (False, True):
            fixed = {"lower": lower, "upper": upper}
            y = [fixed.get(kind, o if kind == "origin" else v) for kind, v, o in zip(face, point, origin, strict=True)]
            free = [i for i, kind in enumerate(face) if kind in ("above", "below")]
            if tight and free:
                # On the face the sum of sign * (y - origin) is the radius: move along the signs.
                sign = [1 if face[i] == "above" else -1 for i in free]
                used = sum(abs(y[i] - origin[i]) for i in range(len(y)) if i not in free)
                excess = sum(s * (y[i] - origin[i]) for s, i in zip(sign, free, strict=True)) - (radius - used)
                for s, i in zip(sign, free, strict=True):
                    y[i] -= s * excess / len(free)
            feasible = sum(abs(a - o) for a, o in zip(y, origin, strict=True)) <= radius + 1e-12
            feasible &= all(lower - 1e-12 <= a <= upper + 1e-12 for a in y)
            distance = sum((a - v) ** 2 for a, v in zip(y, point, strict=True))
            if feasible and distance < best_distance:
                best, best_distance = y, distance
    return best


@given(seed=st.integers(0, 10**6), size=st.integers(1, 4), radius=st.sampled_from([0.0, 0.05, 0.3, 1.0, 3.0]))
def test_the_nearest_point_by_enumeration(seed, size, radius):
    generator = torch.Generator().manual_seed(seed)
    point = torch.randn(size, generator=generator, dtype=torch.float64)
    origin = torch.rand(size, generator=generator, dtype=torch.float64) * 1.2 - 0.1  # sometimes outside the box
    expected = nearest_by_enumeration(point.tolist(), origin.tolist(), radius, 0.0, 1.0)
    result = project(point, origin, radius, 0.0, 1.0)
    if expected is None:  # ball and box do not meet: the box wins
        expected = origin.clamp(0, 1).tolist()
    torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9)


@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([40, 1500]),
    radius=st.floats(0.01, 100),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    spread=st.sampled_from([0.05, 1.0, 50.0]),
    levels=st.sampled_from([0, 3]),
)
def test_optimality_conditions(seed, size, radius, dtype, spread, levels):
    """One multiplier serves every value: those that moved and are not at a bound stay behind the point by just that,
    those at the origin by at most that, those at a bound by at least that."""
    generator = torch.Generator().manual_seed(seed)
    origin = torch.rand(size, generator=generator, dtype=dtype)
    point = origin + spread * torch.randn(size, generator=generator, dtype=dtype)
    if levels:  # many ties
        origin, point = origin.round(), (point * levels).round() / levels
    y = project(point, origin, radius, 0.0, 1.0)
    tolerance = (1e-5 if dtype == torch.float32 else 1e-12) * (1 + spread)
    assert (y - origin).double().abs().sum() <= radius
    if torch.equal(y, point.clamp(0, 1)):
        return
    moved, behind = y - origin, (point - y).abs()
    torch.testing.assert_close(moved.double().abs().sum().item(), radius, rtol=1e-5, atol=1e-6)
    assert (moved * (point - origin) >= 0).all()
    at_bound = (y == 0) | (y == 1)
    free = (moved != 0) & ~at_bound
    still = (moved == 0) & ~at_bound
    least = behind[at_bound & (moved != 0)].amin() if (at_bound & (moved != 0)).any() else behind.amax()
    multiplier = behind[free].mean() if free.any() else least
    assert (behind[free] - multiplier).abs().le(tolerance).all()
    assert behind[still].le(multiplier + tolerance).all()
    assert least >= multiplier - tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_ties_share_the_radius_at_every_scale(dtype, scale):
    """Also where the multiplier, near 1e30, cannot be stored to within the radius."""
    point = torch.tensor([scale, -scale, scale / 4, 0.0], dtype=dtype)
    result = project(point, torch.zeros(4, dtype=dtype), 1e-3 * min(scale, 1.0), -1e38, 1e38)
    half = 0.5e-3 * min(scale, 1.0)
    torch.testing.assert_close(result / half, torch.tensor([1.0, -1.0, 0.0, 0.0], dtype=dtype), rtol=1e-6, atol=0)


def test_nothing_moves_where_the_point_is_in_the_ball():
    point, origin = torch.rand(500), torch.rand(500)
    assert torch.equal(project(point, origin, 1e9, 0.0, 1.0), point)
    assert torch.equal(project(origin, origin, 0.0, 0.0, 1.0), origin)
    assert torch.equal(project(point, origin, 0.0, 0.0, 1.0), origin)


def test_a_box_of_one_point_and_origins_outside():
    point, origin = torch.rand(9), torch.rand(9)
    assert torch.equal(project(point, origin, 0.5, 0.25, 0.25), torch.full((9,), 0.25))
    far = project(torch.full((4,), 5.0), torch.full((4,), -1.0), 4.5, 0.0, 1.0)
    torch.testing.assert_close(far, torch.full((4,), 0.125), rtol=0, atol=1e-6)  # 4 to reach the box, 0.5 to share
    assert torch.equal(project(torch.ones(4), torch.full((4,), -1.0), 3.0, 0.0, 1.0), torch.zeros(4))


def test_special_values_stay_by_themselves():
    nan, infinity = float("nan"), float("inf")
    point = torch.tensor([nan, infinity, -infinity, 0.75, -0.0])
    origin = torch.tensor([0.5, 0.5, 0.5, 0.25, 0.0])
    result = project(point, origin, 1.25, 0.0, 1.0)
    assert result[0].isnan()
    torch.testing.assert_close(result[1:], torch.tensor([1.0, 0.0, 0.5, 0.0]), rtol=0, atol=1e-6)
    result = project(torch.tensor([infinity, 0.9]), torch.tensor([0.5, nan]), 0.1, 0.0, infinity)
    assert result[0].isfinite()
    assert result[1].isnan()


def test_steps_far_beyond_the_box():
    """Every value is at its bound until the multiplier is almost as large as the step."""
    x, grad = torch.rand(3, 400), torch.randn(3, 400)
    result = ops.pgd_step(x, grad, x, norm="l1", step=1e6, radius=20.0)
    torch.testing.assert_close((result - x).double().abs().sum(1), torch.full((3,), 20.0).double(), rtol=1e-5, atol=0)
    assert result.min() >= 0
    assert result.max() <= 1
