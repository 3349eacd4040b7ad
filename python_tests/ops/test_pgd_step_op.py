"""What is special about pgd_step: ball and box hold in the storage type, and projection is idempotent."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdprop_ext import ops

DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16])
NORMS = ["linf", "l2", "l1"]


def length(delta: torch.Tensor, norm: str) -> torch.Tensor:
    return delta.double().flatten(1).norm(p={"linf": float("inf"), "l2": 2, "l1": 1}[norm], dim=1)


@given(
    dtype=DTYPES,
    norm=st.sampled_from(NORMS),
    radius=st.floats(0, 3),
    step=st.floats(-3, 3),
    scale=st.sampled_from([1.0, 255.0, 1e-3]),
    reach=st.sampled_from([1.0, 30.0]),
    seed=st.integers(0, 1000),
)
def test_the_result_obeys_ball_and_box_after_rounding(dtype, norm, radius, step, scale, reach, seed):
    radius *= reach
    generator = torch.Generator().manual_seed(seed)
    origin = (torch.rand(3, 50, generator=generator) * scale).to(dtype)
    x = (torch.rand(3, 50, generator=generator) * scale).to(dtype)
    grad = torch.randn(3, 50, generator=generator).to(dtype)
    bounds = {"lower": 0.0, "upper": float(origin.max())}
    result = ops.pgd_step(x, grad, origin, norm=norm, step=step, radius=radius, **bounds)
    assert (length(result.double() - origin.double(), norm) <= radius * (1 + 2**-22) + 1e-300).all()
    assert result.min() >= 0
    assert result.max() <= bounds["upper"]
    again = ops.pgd_step(result, grad, origin, norm=norm, step=0.0, radius=radius, **bounds)
    assert torch.equal(again, result)


def test_the_usual_comparison_with_eps_holds():
    origin = torch.rand(4, 3, 32, 32)
    result = ops.pgd_step(origin, torch.randn_like(origin), origin, norm="linf", step=1.0, radius=8 / 255)
    assert (result - origin).abs().max().item() <= 8 / 255


@pytest.mark.parametrize("norm", NORMS)
def test_a_radius_below_the_spacing_of_the_values_moves_nothing_outwards(norm):
    origin = torch.rand(20, 30) * 300
    result = ops.pgd_step(origin, torch.randn(20, 30), origin, norm=norm, step=1.0, radius=1e-5, upper=400.0)
    assert (length(result.double() - origin.double(), norm) <= 1e-5).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_box_wins_where_the_origin_lies_outside(norm, dtype):
    origin = torch.rand(8, 100).to(dtype)
    lower, upper = (torch.rand(100) * 0.2).to(dtype), torch.full((100,), 0.8).to(dtype)
    options = {"norm": norm, "step": 0.1, "radius": 0.05, "lower": lower, "upper": upper}
    result = ops.pgd_step(origin, torch.randn(8, 100).to(dtype), origin, **options)
    assert (result >= lower).all()
    assert (result <= upper).all()


@pytest.mark.parametrize("norm", NORMS)
def test_zero_gradients_move_nothing_and_nan_gradients_neither(norm):
    x = torch.rand(2, 9)
    for gradient in (torch.zeros_like(x), torch.full_like(x, float("nan"))):
        assert torch.equal(ops.pgd_step(x, gradient, x, norm=norm, step=0.5, radius=1.0), x)


def test_per_sample_values_equal_single_calls():
    x, grad = torch.rand(4, 3, 7, 5), torch.randn(4, 3, 7, 5)
    step, radius = torch.rand(4), torch.rand(4) * 0.2
    for norm in NORMS:
        together = ops.pgd_step(x, grad, x, norm=norm, step=step, radius=radius)
        for n in range(4):
            one = (t[n : n + 1] for t in (x, grad, x))
            alone = ops.pgd_step(*one, norm=norm, step=step[n].item(), radius=radius[n].item())
            assert torch.equal(together[n : n + 1], alone)


def test_l2_moves_by_the_step_along_the_gradient():
    x, grad = torch.full((2, 100), 0.5, dtype=torch.float64), torch.randn(2, 100, dtype=torch.float64)
    result = ops.pgd_step(x, grad, x, norm="l2", step=0.25, radius=1.0)
    torch.testing.assert_close(length(result - x, "l2"), torch.full((2,), 0.25, dtype=torch.float64))
    torch.testing.assert_close((result - x) / 0.25, grad / grad.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e30, 1e38])
def test_the_length_of_the_gradient_does_not_matter(norm, dtype, scale):
    if dtype == torch.float64:
        scale = scale**8 if scale < 1 else scale**7.9
    x, grad = torch.rand(3, 50, dtype=dtype), torch.randn(3, 50, dtype=dtype).clamp(-3, 3)
    options = {"norm": norm, "step": 0.3, "radius": 0.2}
    expected = ops.pgd_step(x, grad, x, **options)
    tiny = torch.finfo(dtype).tiny
    result = ops.pgd_step(x, grad * scale, x, **options)
    # Below the normal numbers a gradient has few bits of its own.
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6 if scale > tiny else 1e-3)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_perturbations_whose_squares_leave_float64(scale):
    x, origin = torch.randn(2, 40, dtype=torch.float64) * scale, torch.zeros(2, 40, dtype=torch.float64)
    box = {"lower": -1e300, "upper": 1e300}
    result = ops.pgd_step(x, origin, origin, norm="l2", step=0.0, radius=0.5 * scale, **box)
    torch.testing.assert_close(result / scale, 0.5 * x / scale / (x / scale).norm(dim=1, keepdim=True))
