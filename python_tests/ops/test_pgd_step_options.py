"""active, mask, velocity, out and mixed types of pgd_step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdprop_ext import ops
from mdprop_ext.reference.pgd_step import pgd_step as reference_pgd_step

NORMS = ("linf", "l2", "l1")
HALF = (torch.bfloat16, torch.float16)
ALL = (torch.float32, torch.float64, *HALF)


def batch(dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = (4, 3, 20, 21)) -> tuple[torch.Tensor, ...]:
    origin = torch.rand(shape)
    x = (origin + 0.05 * torch.randn(shape)).clamp(0, 1)
    return x.to(dtype), torch.randn(shape).to(dtype), origin.to(dtype)


def options(norm: str) -> dict[str, object]:
    return {"norm": norm, "step": 0.02 if norm != "l2" else 0.7, "radius": {"linf": 0.05, "l2": 1.0, "l1": 20.0}[norm]}


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", ALL)
def test_inactive_samples_and_masked_values_keep_their_bits(norm, dtype):
    x, grad, origin = batch(dtype)
    x[0, 0, 0, :4] = torch.tensor([float("nan"), float("inf"), -0.0, 7.0], dtype=dtype)
    active = torch.tensor([False, True, False, True])
    result = ops.pgd_step(x, grad, origin, **options(norm), active=active)
    assert same_bits(result[~active], x[~active])
    assert same_bits(result[active], ops.pgd_step(x, grad, origin, **options(norm))[active])
    mask = torch.rand(x.shape) > 0.5
    mask[0, 0, 0, :4] = False
    result = ops.pgd_step(x, grad, origin, **options(norm), mask=mask)
    assert same_bits(result[~mask], x[~mask])
    assert not torch.equal(result[mask], x[mask])


@pytest.mark.parametrize("norm", NORMS)
def test_a_mask_takes_the_norms_over_the_rest(norm):
    """The same as a call with the chosen values alone, whatever the others hold."""
    x, grad, origin = batch(torch.float64)
    mask = torch.zeros(20, 21, dtype=torch.bool)
    mask[5:15, 3:] = True
    for tensor in (x, grad, origin):
        tensor[..., ~mask] = float("nan")
    result = ops.pgd_step(x, grad, origin, **options(norm), mask=mask)
    chosen = (t[..., mask].clone() for t in (x, grad, origin))
    torch.testing.assert_close(result[..., mask], ops.pgd_step(*chosen, **options(norm)), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("shape", [(21,), (20, 1), (1, 20, 21), (3, 1, 1), (1, 3, 20, 21), (4, 1, 1, 1), ()])
def test_masks_broadcast_and_may_hold_numbers(shape):
    x, grad, origin = batch()
    mask = torch.randint(0, 2, shape).float() * 3
    expected = ops.pgd_step(x, grad, origin, **options("l2"), mask=(mask != 0).expand(x.shape).contiguous())
    assert torch.equal(ops.pgd_step(x, grad, origin, **options("l2"), mask=mask), expected)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", ALL)
def test_velocity_is_that_of_mi_fgsm(norm, dtype):
    x, grad, origin = batch(dtype)
    grad[2] = 0
    velocity = torch.randn(x.shape).to(dtype)
    mean = grad.double().abs().mean((1, 2, 3), keepdim=True)
    expected = 0.5 * velocity.double() + torch.where(mean > 0, grad.double() / mean, 0)
    result = ops.pgd_step(x, grad, origin, **options(norm), velocity=velocity, decay=0.5)
    close = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 2**-8, torch.float16: 2**-10}[dtype]
    torch.testing.assert_close(velocity.double(), expected, rtol=close, atol=close)
    assert torch.equal(result, ops.pgd_step(x, velocity, origin, **options(norm)))


def test_velocity_rests_where_nothing_moves_and_counts_the_mask_only():
    x, grad, origin = batch()
    active, mask = torch.tensor([True, False, True, True]), torch.rand(3, 20, 21) > 0.6
    before = torch.randn(x.shape)
    velocity = before.clone()
    ops.pgd_step(x, grad, origin, **options("linf"), active=active, mask=mask, velocity=velocity)
    resting = ~(active.view(-1, 1, 1, 1) & mask)
    assert same_bits(velocity[resting], before[resting])
    mean = (grad.abs() * mask).sum((1, 2, 3), keepdim=True) / mask.sum()
    torch.testing.assert_close(velocity[~resting], (before + grad / mean)[~resting])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_adds_nothing_to_the_velocity(bad):
    x, grad, origin = batch()
    grad[1, 0, 0, 0] = bad
    velocity = torch.ones_like(x)
    ops.pgd_step(x, grad, origin, **options("linf"), velocity=velocity, decay=0.5)
    assert (velocity[1] == 0.5).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_out_is_written_and_may_be_x(norm, dtype, memory_format):
    x, grad, origin = (t.contiguous(memory_format=memory_format) for t in batch(dtype))
    expected = ops.pgd_step(x, grad, origin, **options(norm))
    out = torch.full_like(x, float("nan"))
    assert ops.pgd_step(x, grad, origin, **options(norm), out=out) is out
    assert same_bits(out, expected)
    mask = torch.rand(x.shape) > 0.3
    masked = ops.pgd_step(x, grad, origin, **options(norm), mask=mask, active=torch.arange(4) > 0)
    again = x.clone(memory_format=torch.preserve_format)
    ops.pgd_step(again, grad, origin, **options(norm), mask=mask, active=torch.arange(4) > 0, out=again)
    assert same_bits(again, masked)
    ops.pgd_step(x, grad, origin, **options(norm), out=x)
    assert same_bits(x, expected)


def length(delta: torch.Tensor, norm: str) -> torch.Tensor:
    return delta.double().flatten(1).norm(p={"linf": float("inf"), "l2": 2, "l1": 1}[norm], dim=1)


@given(
    norm=st.sampled_from(NORMS),
    target=st.sampled_from(HALF),
    pixels=st.booleans(),
    radius=st.floats(0.0, 1.0),
    lower=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 1000),
)
def test_results_in_half_types_obey_ball_and_box(norm, target, pixels, radius, lower, seed):
    """Whenever the values next to the origins are themselves in ball and box."""
    generator = torch.Generator().manual_seed(seed)
    pixel = torch.randint(80, 256, (3, 60), generator=generator, dtype=torch.uint8)
    origin = pixel / 255
    x, grad = (torch.rand(3, 60, generator=generator), torch.randn(3, 60, generator=generator))
    radius *= {"linf": 0.1, "l2": 0.5, "l1": 4.0}[norm]
    arguments = (x, grad, pixel if pixels else origin)
    result = ops.pgd_step(
        *arguments, norm=norm, step=0.1, radius=radius, lower=lower, out=torch.empty_like(x, dtype=target)
    )
    assert result.dtype == target
    assert result.min() >= lower
    assert result.max() <= 1
    nearest = origin.to(target)
    reachable = length(nearest.double() - origin.double(), norm) < radius * (1 - 2**-20)
    assert (length(result.double() - origin.double(), norm)[reachable] <= radius * (1 + 2**-22)).all()
    if radius == 0:
        assert torch.equal(result, nearest.clamp(min=lower))


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("norm", NORMS)
def test_bytes_are_images_of_256_levels(dtype, norm):
    x, grad, _ = batch(dtype)
    pixel = torch.randint(0, 256, x.shape, dtype=torch.uint8)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    result = ops.pgd_step(x, grad, pixel, **options(norm))
    if dtype == wide:
        assert torch.equal(result, ops.pgd_step(x, grad, pixel.to(wide) / 255, **options(norm)))
    torch.testing.assert_close(
        result, ops.pgd_step(x, grad, (pixel / 255).to(dtype), **options(norm)), rtol=0, atol=0.02
    )


def test_the_writing_op_passes_opcheck():
    x, grad, origin = batch()
    raw = torch.ops.mdprop.pgd_step_out.default
    numbers = ("l2", 0.1, None, 0.5, None, 0.0, None, 1.0, None)
    torch.library.opcheck(raw, (x, grad, origin, *numbers, None, None, torch.zeros_like(x), 0.9, torch.zeros_like(x)))
    torch.library.opcheck(raw, (x, grad, origin, *numbers, None, None, None, 1.0, torch.zeros_like(x).half()))


@pytest.mark.parametrize("in_place", [False, True])
def test_the_writing_op_compiles(in_place):
    def step(x, grad, origin, velocity):
        target = x if in_place else torch.empty_like(x)
        ops.pgd_step(x, grad, origin, **options("linf"), velocity=velocity, decay=0.9, out=target)
        return target + 1

    x, grad, origin = batch()
    velocity = torch.randn_like(x)
    copies = [t.clone() for t in (x, grad, origin, velocity)]
    expected = step(*copies)
    result = torch.compile(step, backend="aot_eager", fullgraph=True)(x, grad, origin, velocity)
    assert torch.equal(result, expected)
    assert torch.equal(velocity, copies[3])
    assert torch.equal(x, copies[0])


def test_no_result_requires_a_gradient():
    x, grad, origin = (t.requires_grad_() for t in batch())
    out = torch.empty(x.shape)
    ops.pgd_step(x, grad, origin, **options("l2"), out=out)
    assert not out.requires_grad
    assert not ops.pgd_step(x, grad, origin, **options("l2"), velocity=torch.zeros(x.shape)).requires_grad


def test_expanded_batches_are_read_as_they_are():
    x, grad, origin = batch(shape=(1, 3, 8, 9))
    many = [t.expand(5, -1, -1, -1) for t in (x, grad, origin)]
    expected = ops.pgd_step(x, grad, origin, **options("l1"))
    assert torch.equal(ops.pgd_step(*many, **options("l1")), expected.expand(5, -1, -1, -1))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("function", [ops.pgd_step, reference_pgd_step], ids=["op", "reference"])
def test_a_mask_of_another_memory_format_leaves_that_of_x(norm, function):
    x, grad, origin = (tensor.contiguous(memory_format=torch.channels_last) for tensor in batch())
    for mask in (torch.ones(20, 21), torch.rand(4, 3, 20, 21) > 0.5):
        result = function(x, grad, origin, **options(norm), mask=mask)
        assert result.is_contiguous(memory_format=torch.channels_last)
        same = function(x.contiguous(), grad.contiguous(), origin.contiguous(), **options(norm), mask=mask)
        torch.testing.assert_close(result, same, rtol=0, atol=1e-6)
