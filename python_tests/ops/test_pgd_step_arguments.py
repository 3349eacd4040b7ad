"""What pgd_step asks of its numbers and of the tensors that it writes, and what autograd hears of the writing."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mdprop_ext import ops

OPTIONS = {"norm": "l2", "step": 0.5, "radius": 1.0}


def batch() -> list[torch.Tensor]:
    return [torch.rand(4, 3, 5, 6) for _ in range(3)]


@pytest.mark.parametrize("name", ["out", "velocity"])
def test_a_graph_that_saved_what_is_written_refuses_to_run_backward(name):
    x, grad, origin = batch()
    written = torch.rand_like(x)
    product = torch.ones_like(x, requires_grad=True) * written
    ops.pgd_step(x, grad, origin, **OPTIONS, **{name: written})
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


def test_what_is_only_read_keeps_its_version():
    x, grad, origin = batch()
    velocity, out = torch.zeros_like(x), torch.empty_like(x)
    ops.pgd_step(x, grad, origin, **OPTIONS, velocity=velocity, out=out)
    assert [t._version for t in (x, grad, origin)] == [0, 0, 0]
    assert velocity._version > 0
    assert out._version > 0


@pytest.mark.parametrize("name", ["out", "velocity"])
def test_what_requires_a_gradient_is_written_without_grad_mode_only(name):
    x, grad, origin = batch()
    leaf = torch.nn.Parameter(torch.zeros_like(x))
    with pytest.raises(ValueError, match=rf"{name}: expected .*requires no gradient.*detach.*torch.no_grad\(\)"):
        ops.pgd_step(x, grad, origin, **OPTIONS, **{name: leaf})
    assert not leaf.any()
    with torch.no_grad():
        ops.pgd_step(x, grad, origin, **OPTIONS, **{name: leaf})
    assert leaf.any()


@pytest.mark.parametrize("step", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("rows", [False, True])
def test_steps_are_finite(step, rows):
    x, grad, origin = batch()
    with pytest.raises(ValueError, match="step: expected finite values, got"):
        ops.pgd_step(x, grad, origin, **{**OPTIONS, "step": torch.tensor([0.1, step, 0, 0]) if rows else step})


@pytest.mark.parametrize("name", ["step", "radius", "lower", "upper", "decay"])
@pytest.mark.parametrize("value", ["0.1", None, True, [0.1]])
def test_options_are_numbers(name, value):
    x, grad, origin = batch()
    with pytest.raises(TypeError, match=rf"^{name}: expected a number, got {type(value).__name__}$"):
        ops.pgd_step(x, grad, origin, velocity=torch.zeros_like(x), **{**OPTIONS, name: value})


def test_random_start_names_its_options_too():
    with pytest.raises(TypeError, match="radius: expected a number, got str"):
        ops.random_start(torch.rand(2, 3), norm="linf", radius="0.1", seed=1)


@pytest.mark.parametrize("half", [np.float32(0.5), np.float64(0.5), Fraction(1, 2), torch.full((4,), 0.5)])
def test_numbers_of_other_types_count_as_floats(half):
    x, grad, origin = batch()
    expected = ops.pgd_step(x, grad, origin, **OPTIONS)
    assert torch.equal(ops.pgd_step(x, grad, origin, **{**OPTIONS, "step": half, "radius": 1}), expected)


def test_steps_of_every_type_of_number_compile():
    x, grad, origin = batch()
    compiled = torch.compile(ops.pgd_step, backend="aot_eager", fullgraph=True)
    for step in (0.1, 0.2, 1, np.float64(0.3), torch.rand(4)):
        options = {**OPTIONS, "step": step}
        assert torch.equal(compiled(x, grad, origin, **options), ops.pgd_step(x, grad, origin, **options))


# How many values lie in a memory before the tensor within.
BEFORE = 10


def shared(shape: torch.Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Zeros, and a dense tensor of a shape within them."""
    memory = torch.zeros(2 * shape.numel())
    return memory, memory[BEFORE : BEFORE + shape.numel()].view(shape)


@pytest.mark.parametrize("written", ["out", "velocity"])
@pytest.mark.parametrize("read", ["x", "grad", "origin", "lower", "upper", "mask", "active", "step", "radius"])
def test_what_is_written_overlaps_nothing_else(written, read):
    x, grad, origin = batch()
    memory, target = shared(x.shape)
    # Each begins before the target and ends within.
    views = {
        **dict.fromkeys(("x", "grad", "origin"), memory[: x.numel()].view(x.shape)),
        "lower": memory[: BEFORE + 3 : 6].view(3, 1, 1),
        "upper": memory[BEFORE - 1 : BEFORE + 5],
        "mask": memory.view(torch.bool)[4 * BEFORE - 5 : 4 * BEFORE + 1],
        "active": memory.view(torch.bool)[4 * BEFORE - 3 : 4 * BEFORE + 1],
        **dict.fromkeys(("step", "radius"), memory.view(torch.float64)[BEFORE // 2 - 3 : BEFORE // 2 + 1]),
    }
    values = {"x": x, "grad": grad, "origin": origin, **OPTIONS, read: views[read], written: target}
    with pytest.raises(ValueError, match=f"^{written}: expected memory of its own, got a tensor that overlaps {read}$"):
        ops.pgd_step(**values)


def test_velocity_and_out_are_apart():
    x, grad, origin = batch()
    with pytest.raises(ValueError, match="velocity: expected memory of its own, got a tensor that overlaps out"):
        ops.pgd_step(x, grad, origin, **OPTIONS, velocity=(both := torch.zeros_like(x)), out=both)
    with pytest.raises(ValueError, match="velocity: expected memory of its own, got a tensor that overlaps x"):
        ops.pgd_step(x, grad, origin, **OPTIONS, velocity=x, out=x)


def test_neighbours_in_one_memory_are_apart():
    x, grad, origin = batch()
    steps = torch.zeros(5, *x.shape)
    for index, tensor in enumerate((x, grad, origin)):
        steps[index] = tensor
    result = ops.pgd_step(*steps[:3], **OPTIONS, velocity=steps[3], out=steps[4])
    assert torch.equal(result, ops.pgd_step(x, grad, origin, **OPTIONS, velocity=torch.zeros_like(x)))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_out_may_be_x_under_another_name(memory_format):
    x, grad, origin = (t.contiguous(memory_format=memory_format) for t in batch())
    expected = ops.pgd_step(x, grad, origin, **OPTIONS)
    ops.pgd_step(x, grad, origin, **OPTIONS, out=x.detach())
    assert torch.equal(x, expected)


def test_out_in_the_memory_of_x_is_all_of_it():
    x, grad, origin = batch()
    halves = x.view(torch.bfloat16).flatten()[: x.numel()].view(x.shape)
    with pytest.raises(ValueError, match="out: expected memory of its own, got a tensor that overlaps x"):
        ops.pgd_step(x, grad, origin, **OPTIONS, out=halves)
    repeated = x[:1].expand(4, -1, -1, -1)
    with pytest.raises(ValueError, match="out: expected memory of its own, got a tensor that overlaps x"):
        ops.pgd_step(repeated, grad, origin, **OPTIONS, out=x)
    with pytest.raises(ValueError, match="out: expected memory of its own, got a tensor that overlaps origin"):
        ops.pgd_step(x, grad, x, **OPTIONS, out=x)


def test_tensors_without_memory_pass():
    with FakeTensorMode():
        x, grad, origin, out = (torch.empty(4, 3) for _ in range(4))
        assert ops.pgd_step(x, grad, origin, **OPTIONS, velocity=torch.empty(4, 3), out=out) is out
    x, grad, origin, out = (torch.empty(4, 3, device="meta") for _ in range(4))
    assert ops.pgd_step(x, grad, origin, **OPTIONS, out=out) is out
    empty = torch.empty(0, 3)
    assert ops.pgd_step(empty, empty, empty, **OPTIONS, out=empty) is empty


def test_steps_inside_a_function_transform():
    x, grad, origin = batch()

    def product(y: torch.Tensor) -> torch.Tensor:
        return (y * ops.pgd_step(y, grad, origin, **OPTIONS, out=torch.empty_like(x))).sum()

    assert torch.equal(torch.func.grad(product)(x), ops.pgd_step(x, grad, origin, **OPTIONS))


def test_tensors_of_options_are_not_read_in_a_trace():
    with torch._subclasses.fake_tensor.FakeTensorMode():
        x, each = torch.empty(4, 3), torch.empty(4)
        assert ops.pgd_step(x, x, x, norm="l2", step=each, radius=each, lower=torch.empty(4, 3)).shape == (4, 3)


def test_strides_that_do_not_count_do_not_tell_out_from_x():
    x = torch.rand(2, 4, 2, 2)[:1, :3]
    out = x.reshape(-1).view(1, 3, 2, 2)
    assert out.data_ptr() == x.data_ptr()
    ops.pgd_step(x, torch.ones_like(out), torch.zeros(1, 3, 2, 2), norm="linf", step=0.1, radius=1.0, out=out)
