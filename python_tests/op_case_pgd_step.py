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

# Below, around and above the kernel's tile of 1,024 values and its task of 8 tiles; one sample; more than 4 MB.
SHAPES = {
    "scalar_tail": (7, 3),
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
        for norm in ("linf", "l2"):
            size = (torch.tensor(shape[1:]).prod().item() ** 0.5) if norm == "l2" else 1.0
            args = points(shape, dtype)
            numbers = {"norm": norm, "step": 0.01 * size, "radius": 8 / 255 * size}
            yield Sample(f"{name}-{norm}", args, numbers, f"{norm}-{name}")
            if name == "large":
                continue
            tensors = {
                "norm": norm,
                "step": torch.rand(shape[0]) * 0.1 * size,
                "radius": torch.rand(shape[0]) * 0.05 * size,
            }
            yield Sample(f"{name}-{norm}-per_sample", args, tensors, f"{norm}-per_sample")
            channels = [1, shape[1]] + [1] * (len(shape) - 2)
            bounds = {
                "lower": -torch.rand(channels),
                "upper": torch.tensor(0.9),
                "norm": norm,
                "step": -0.02,
                "radius": 0.3,
            }
            yield Sample(f"{name}-{norm}-bounds", args, bounds, f"{norm}-bounds")
    x, grad, origin = points((4, 3, 8, 6), dtype)
    rows = [t.contiguous(memory_format=torch.channels_last) for t in (x, grad, origin)]
    for norm in ("linf", "l2"):
        yield Sample(f"channels_last-{norm}", tuple(rows), {"norm": norm, "step": 0.3, "radius": 0.25}, f"{norm}-rows")
        yield Sample(
            f"zero_gradient-{norm}", (x, 0 * grad, origin), {"norm": norm, "step": 1.0, "radius": 0.5}, f"{norm}-zero"
        )
        yield Sample(f"no_radius-{norm}", (x, grad, origin), {"norm": norm, "step": 1.0, "radius": 0.0}, f"{norm}-zero")
        yield Sample(
            f"empty-{norm}", (x[:0], grad[:0], origin[:0]), {"norm": norm, "step": 1.0, "radius": 0.5}, "empty"
        )


def raw_args(sample: Sample) -> tuple[Any, ...]:
    x = sample.args[0]
    step, radius = sample.kwargs["step"], sample.kwargs["radius"]
    lower, upper = sample.kwargs.get("lower", 0.0), sample.kwargs.get("upper", 1.0)
    is_tensor = isinstance(lower, torch.Tensor)
    bounds = [torch.as_tensor(b, dtype=compute_dtype(x)).expand(x.shape) if is_tensor else None for b in (lower, upper)]
    numbers = [0.0 if isinstance(v, torch.Tensor) else v for v in (step, radius, lower, upper)]
    rows = [v if isinstance(v, torch.Tensor) else None for v in (step, radius)]
    return (
        *sample.args, sample.kwargs["norm"], numbers[0], rows[0], numbers[1], rows[1],
        numbers[2], bounds[0], numbers[3], bounds[1],
    )  # fmt: skip


X = torch.zeros(4, 3)
OPTIONS = {"norm": "linf", "step": 0.1, "radius": 0.1}

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
    variants=frozenset(
        {f"{norm}-{kind}" for norm in ("linf", "l2") for kind in (*SHAPES, "per_sample", "bounds", "rows", "zero")}
        | {"empty"}
    ),
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
    ),
)
