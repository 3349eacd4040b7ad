"""pgd_step at the edges of its number formats: bounds that a half type lacks, NaN, infinity. Kernels and reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mdprop_ext import ops
from mdprop_ext.reference.pgd_step import pgd_step as reference_pgd_step
from mdprop_ext.reference.random_start import random_start as reference_random_start

NORMS = ("linf", "l2", "l1")
HALF = (torch.bfloat16, torch.float16)
WIDE = (torch.float32, torch.float64)
NAN, INFINITY = float("nan"), float("inf")

Step = Callable[..., Tensor]


@pytest.fixture(params=["kernel", "reference"])
def step(request: pytest.FixtureRequest) -> Step:
    """pgd_step as a kernel and as plain PyTorch."""
    return ops.pgd_step if request.param == "kernel" else reference_pgd_step


@pytest.fixture(params=["kernel", "reference"])
def start(request: pytest.FixtureRequest) -> Step:
    """random_start as a kernel and as plain PyTorch."""
    return ops.random_start if request.param == "kernel" else reference_random_start


def rows(*values: list[float], dtype: torch.dtype, device: str) -> list[Tensor]:
    """Each list as a batch of one sample."""
    return [torch.tensor([row], dtype=dtype, device=device) for row in values]


def project(step: Step, x: Tensor, origin: Tensor, **options: object) -> Tensor:
    """A step of length 0."""
    return step(x, torch.zeros_like(x), origin, **{"step": 0.0, **options})


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("bound", [0.1, 0.7, 1 / 3])
@pytest.mark.parametrize("tensors", [False, True])
def test_bounds_that_are_not_storable_hold(step, device, norm, dtype, bound, tensors):
    """Where the origin is outside, the result is the storable value of the box nearest to the bound."""
    zero, one = rows([0.0], [1.0], dtype=dtype, device=device)
    limit = torch.tensor(bound, device=device) if tensors else bound
    spacing = torch.finfo(dtype).eps
    below = project(step, zero, zero, norm=norm, radius=0.01, lower=limit)
    assert bound <= below.item() <= bound * (1 + spacing)
    above = project(step, one, one, norm=norm, radius=0.01, upper=limit)
    assert bound * (1 - spacing) <= above.item() <= bound


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", HALF)
def test_random_starts_obey_bounds_that_are_not_storable(start, device, norm, dtype):
    origin = torch.tensor([[0.0] * 20 + [1.0] * 20], dtype=dtype, device=device)
    result = start(origin, norm=norm, radius=0.05, lower=0.1, upper=0.7, seed=3)
    assert result.min().item() >= 0.1
    assert result.max().item() <= 0.7


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [*WIDE, *HALF])
@pytest.mark.parametrize("radius", [0.125, 8.0])
def test_a_nan_stays_and_leaves_the_rest_alone(step, device, norm, dtype, radius):
    """In x or origin: the other values are projected as if it were not there."""
    x, origin = rows([NAN, 0.875, 0.25, 0.5], [0.5, 0.5, 0.5, NAN], dtype=dtype, device=device)
    result = project(step, x, origin, norm=norm, radius=radius)
    assert result.isnan().tolist() == [[True, False, False, True]]
    alone = project(step, x[:, 1:3], origin[:, 1:3], norm=norm, radius=radius)
    assert torch.equal(result[:, 1:3], alone)
    assert not torch.equal(alone, x[:, 1:3]) or radius == 8.0


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("target", HALF)
def test_a_nan_origin_of_another_type_takes_none_of_the_radius(step, device, norm, target):
    x, origin = rows([0.9, 0.9], [NAN, 0.5], dtype=torch.float32, device=device)
    result = project(step, x, origin, norm=norm, radius=0.25, out=torch.empty_like(x, dtype=target))
    assert result[0, 0].isnan()
    assert result[0, 1].item() == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [*WIDE, *HALF])
@pytest.mark.parametrize("upper", [1.0, INFINITY])
def test_infinite_values_come_back_onto_the_ball(step, device, norm, dtype, upper):
    x, origin = rows([INFINITY, 0.5], [0.5, 0.5], dtype=dtype, device=device)
    radius = 0.25
    result = project(step, x, origin, norm=norm, radius=radius, upper=upper)
    assert result[0].tolist() == pytest.approx([0.75, 0.5], abs=0.004 if dtype in HALF else 1e-6)
    assert result[0, 0].item() <= 0.75
    down = project(step, -x, -origin, norm=norm, radius=radius, lower=-upper, upper=0.0)
    assert torch.equal(down, -result)


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("dtype", WIDE)
def test_infinite_values_share_the_radius(step, device, norm, dtype):
    x, origin = rows([INFINITY, -INFINITY, 0.75], [0.5, 0.5, 0.5], dtype=dtype, device=device)
    result = project(step, x, origin, norm=norm, radius=0.25, lower=-INFINITY, upper=INFINITY)
    length = 0.25 / (2 if norm == "l1" else 2**0.5)
    assert result[0].tolist() == pytest.approx([0.5 + length, 0.5 - length, 0.5], abs=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", WIDE)
def test_an_infinite_radius_leaves_infinite_values_without_nan(step, device, norm, dtype):
    x, origin = rows([INFINITY, 0.75], [0.5, 0.5], dtype=dtype, device=device)
    result = project(step, x, origin, norm=norm, radius=INFINITY, upper=INFINITY)
    assert result[0, 0].item() >= torch.finfo(dtype).max
    assert result[0, 1].item() == 0.75


@pytest.mark.parametrize("dtype", WIDE)
def test_l1_far_outside_the_ball_uses_up_the_radius(step, device, dtype):
    """The multiplier is near 1e20, where floating-point numbers are much further apart than the radius."""
    x = 1e20 * torch.tensor([[1.0, -1.0, 0.5, 0.0]], dtype=dtype, device=device)
    box = {"lower": -INFINITY, "upper": INFINITY}
    result = project(step, x, torch.zeros_like(x), norm="l1", radius=20.0, **box)
    assert result[0].tolist() == pytest.approx([10.0, -10.0, 0.0, 0.0], rel=1e-6)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("box", [(0.1, 0.1), (0.6995, 0.7030)])
def test_boxes_without_a_storable_value_free_no_radius_for_the_others(step, device, dtype, box):
    """The values that are held between unstorable bounds must not lend their room to the rest of an l1 sample."""
    held = torch.arange(612, device=device) < 512
    lower, upper = (torch.where(held, bound, free) for bound, free in zip(box, (0.0, 1.0), strict=True))
    origin = torch.where(held, box[0], 0.5).to(dtype).view(1, -1)
    grad = torch.where(held, -1.0, 1.0).to(dtype).view(1, -1)
    result = step(
        origin, grad, origin, norm="l1", step=0.25, radius=1.0, lower=lower.view(1, -1), upper=upper.view(1, -1)
    )
    assert (result - origin)[:, 512:].double().abs().sum() <= 1.0
