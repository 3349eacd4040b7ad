"""The contract row of pgd_step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from op_case import FLOATING, BadCall, OpCase, Sample
from oracles.pgd_step import pgd_step_oracle

from mdprop_ext import ops
from mdprop_ext.ops._check import compute_dtype
from mdprop_ext.reference.pgd_step import pgd_step

NORMS = ("linf", "l2", "l1")
# Below, around and above the kernel's tile of 1,024 values and its task of 8 tiles; one sample; more than 4 MB.
SHAPES = {
    "scalar_tail": (7, 3),
    "flat": (9,),
    "tile": (3, 4, 16, 17),
    "tasks": (2, 3, 70, 50),
    "one": (1, 3, 64, 65),
    "large": (8, 3, 224, 224),
}


def points(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Current points, gradients with some exact zeros, and origins in the unit box."""
    origin = torch.rand(shape)
    x = (origin + torch.randn(shape) * 0.02).clamp(0, 1)
    grad = torch.randn(shape) * (torch.rand(shape) > 0.1)
    return x.to(dtype), grad.to(dtype), origin.to(dtype)


def samples(dtype: torch.dtype) -> Iterator[Sample]:
    for name, shape in SHAPES.items():
        size = float(torch.tensor(shape[1:]).prod())
        for norm in NORMS:
            length = {"linf": 1.0, "l2": size**0.5, "l1": 1.0}[norm]
            reach = {"linf": 1.0, "l2": size**0.5, "l1": size / 3}[norm]
            args = points(shape, dtype)
            numbers = {"norm": norm, "step": 0.01 * length, "radius": 8 / 255 * reach}
            yield Sample(f"{name}-{norm}", args, numbers, f"{norm}-{name}")
            if name != "large":
                yield from option_samples(name, args, norm, length, reach)
    x, grad, origin = points((4, 3, 8, 6), dtype)
    rows = [t.contiguous(memory_format=torch.channels_last) for t in (x, grad, origin)]
    for norm in NORMS:
        yield Sample(f"channels_last-{norm}", tuple(rows), {"norm": norm, "step": 0.3, "radius": 0.25}, f"{norm}-rows")
        kwargs = {"norm": norm, "step": 1.0, "radius": 0.5}
        yield Sample(f"zero_gradient-{norm}", (x, 0 * grad, origin), kwargs, f"{norm}-zero")
        yield Sample(f"no_radius-{norm}", (x, grad, origin), {**kwargs, "radius": 0.0}, f"{norm}-zero")
        yield Sample(f"empty-{norm}", (x[:0], grad[:0], origin[:0]), kwargs, "empty")


def option_samples(
    name: str, args: tuple[torch.Tensor, ...], norm: str, length: float, reach: float
) -> Iterator[Sample]:
    x, grad, origin = args
    shape = x.shape
    base = {"norm": norm, "step": 0.02 * length, "radius": 0.02 * reach}
    rows = {"step": torch.rand(shape[0]) * 0.1 * length, "radius": torch.rand(shape[0]) * 0.05 * reach}
    yield Sample(f"{name}-{norm}-per_sample", args, {**base, **rows}, f"{norm}-per_sample")
    channels = [1, shape[1]] + [1] * (len(shape) - 2) if len(shape) > 1 else [1]
    bounds = {"lower": -torch.rand(channels), "upper": torch.tensor(0.9), "step": -0.02, "radius": 0.3}
    yield Sample(f"{name}-{norm}-bounds", args, {**base, **bounds}, f"{norm}-bounds")
    bounds = {"lower": 0.1, "upper": torch.rand(shape) * 0.5 + 0.2}
    yield Sample(f"{name}-{norm}-full_bounds", args, {**base, **bounds}, f"{norm}-bounds")
    active = torch.arange(shape[0]) % 2 == 0
    yield Sample(f"{name}-{norm}-active", args, {**base, "active": active}, f"{norm}-active")
    shared, own = torch.rand(shape[1:]) > 0.4, (torch.rand(shape) > 0.4).to(x.dtype)
    yield Sample(f"{name}-{norm}-mask", args, {**base, "mask": shared, "active": ~active}, f"{norm}-mask")
    yield Sample(f"{name}-{norm}-own_mask", args, {**base, "mask": own}, f"{norm}-mask")
    momentum = {"velocity": torch.randn(shape).to(x.dtype), "decay": 0.9}
    yield Sample(f"{name}-{norm}-velocity", args, {**base, **momentum}, f"{norm}-velocity")
    momentum = {**momentum, "mask": shared, "active": active}
    yield Sample(f"{name}-{norm}-velocity_mask", args, {**base, **momentum}, f"{norm}-velocity")
    yield Sample(f"{name}-{norm}-out", args, {**base, "out": torch.full_like(x, float("nan"))}, f"{norm}-out")
    if norm == "linf" or x.dtype in (torch.float32, torch.float64):  # else rounding takes its share of the radius
        images = (x, grad, (origin * 255).round().byte())
        yield Sample(f"{name}-{norm}-bytes", images, base, f"{norm}-bytes")


def number_raw(value: float | torch.Tensor) -> tuple[float, torch.Tensor | None]:
    return (0.0, value) if isinstance(value, torch.Tensor) else (value, None)


def bounds_raw(sample: Sample) -> tuple[Any, ...]:
    x, lower, upper = sample.args[0], sample.kwargs.get("lower", 0.0), sample.kwargs.get("upper", 1.0)
    if not isinstance(lower, torch.Tensor) and not isinstance(upper, torch.Tensor):
        return lower, None, upper, None
    low, high = (torch.as_tensor(bound, dtype=compute_dtype(x)).expand(x.shape) for bound in (lower, upper))
    return 0.0, low, 0.0, high


def raw_args(sample: Sample) -> tuple[Any, ...]:
    """Velocity and out belong to a second raw op."""
    options = sample.kwargs
    mask = options.get("mask")
    return (
        *sample.args, options["norm"], *number_raw(options["step"]), *number_raw(options["radius"]),
        *bounds_raw(sample), options.get("active"), None if mask is None else (mask != 0).expand(sample.args[0].shape),
    )  # fmt: skip


X = torch.zeros(4, 3)
ROWS = torch.ones(4, dtype=torch.bool)
OPTIONS = {"norm": "linf", "step": 0.1, "radius": 0.1}

KINDS = ("per_sample", "bounds", "active", "mask", "velocity", "out", "bytes", "rows", "zero")

PGD_STEP = OpCase(
    name="pgd_step",
    function=ops.pgd_step,
    reference=pgd_step,
    oracle=pgd_step_oracle,
    samples=samples,
    raw_args=raw_args,
    dtypes=FLOATING,
    tolerance={
        torch.float32: (1e-6, 2e-7),
        torch.float64: (1e-14, 1e-14),
        torch.bfloat16: (2**-7, 1e-6),
        torch.float16: (2**-10, 1e-6),
    },
    reason="roundings of fp32, then one step of the storage type towards the origin instead of the nearest value",
    variants=frozenset({f"{norm}-{kind}" for norm in NORMS for kind in (*SHAPES, *KINDS)} | {"empty"}),
    keeps_channels_last=True,
    errors=(
        BadCall(TypeError, "x: expected a tensor, got int", (1, X, X), OPTIONS),
        BadCall(TypeError, "x: expected float32.*got torch.int64", (X.long(), X, X), OPTIONS),
        BadCall(ValueError, r"grad: expected the shape of x, \[4, 3\], got \[4, 2\]", (X, X[:, :2], X), OPTIONS),
        BadCall(TypeError, "origin: expected the dtype of x", (X, X, X.double()), OPTIONS),
        BadCall(ValueError, "norm: expected one of .*got 'l7'", (X, X, X), {**OPTIONS, "norm": "l7"}),
        BadCall(
            ValueError, r"step: expected a number or \[N\] with N = 4, got \[3\]", (X, X, X), {**OPTIONS, "step": X[0]}
        ),
        BadCall(ValueError, "radius: expected >= 0, got -0.1", (X, X, X), {**OPTIONS, "radius": -0.1}),
        BadCall(ValueError, "radius: expected >= 0, got tensor", (X, X, X), {**OPTIONS, "radius": X[:, 0] - 1}),
        BadCall(
            ValueError, "lower: expected at most upper", (X, X, X), {**OPTIONS, "lower": X + 0.5, "upper": X + 0.4}
        ),
        BadCall(
            ValueError,
            "lower: expected a number or a tensor that broadcasts",
            (X, X, X),
            {**OPTIONS, "lower": X[:, :2]},
        ),
        BadCall(ValueError, "lower: expected at most upper", (X, X, X), {**OPTIONS, "lower": 2.0}),
        BadCall(ValueError, "origin: expected the shape of x", (X, X, X[:3].byte()), OPTIONS),
        BadCall(TypeError, "active: expected bool, got torch.float32", (X, X, X), {**OPTIONS, "active": X[:, 0]}),
        BadCall(
            ValueError, r"active: expected \[N\] with N = 4, got \[3\]", (X, X, X), {**OPTIONS, "active": ROWS[:3]}
        ),
        BadCall(
            ValueError, r"mask: expected a tensor that broadcasts to x, got \[4\]", (X, X, X), {**OPTIONS, "mask": ROWS}
        ),
        BadCall(ValueError, "mask: expected the device of x", (X, X, X), {**OPTIONS, "mask": X.to("meta")}),
        BadCall(TypeError, "velocity: expected the dtype of x", (X, X, X), {**OPTIONS, "velocity": X.half()}),
        BadCall(
            ValueError, "velocity: expected a dense tensor", (X, X, X), {**OPTIONS, "velocity": torch.zeros(3, 4).T}
        ),
        BadCall(TypeError, "out: expected a tensor, got int", (X, X, X), {**OPTIONS, "out": 1}),
        BadCall(TypeError, "out: expected torch.float32 or .*got torch.int64", (X, X, X), {**OPTIONS, "out": X.long()}),
        BadCall(
            TypeError,
            "out: expected torch.float64 for .*got torch.float16",
            (X.double(),) * 3,
            {**OPTIONS, "out": X.half()},
        ),
        BadCall(ValueError, r"out: expected the shape of x, \[4, 3\], got", (X, X, X), {**OPTIONS, "out": X[:3]}),
        BadCall(ValueError, "out: expected the device of x", (X, X, X), {**OPTIONS, "out": X.to("meta")}),
        BadCall(
            ValueError, "out: expected a dense tensor.*got strides", (X, X, X), {**OPTIONS, "out": torch.zeros(3, 4).T}
        ),
    ),
)
