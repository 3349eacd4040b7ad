"""The contract row of random_start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from op_case import FLOATING, BadCall, OpCase, Sample
from op_case_pgd_step import bounds_raw, number_raw
from oracles.random_start import random_start_oracle

from mdprop_ext import ops
from mdprop_ext.reference.random_start import random_start

NORMS = ("linf", "l2", "l1")
# One value; below, around and above a block of 4 words, a tile of 1,024 values and more than 32 tiles.
SHAPES = {"one": (3, 1), "tail": (5, 7), "tile": (2, 4, 16, 17), "tiles": (1, 33, 32, 33), "flat": (9,)}


def samples(dtype: torch.dtype) -> Iterator[Sample]:
    for name, shape in SHAPES.items():
        origin = torch.rand(shape).to(dtype)
        size = origin[0].numel()
        for norm in NORMS:
            radius = 0.1 * {"linf": 1.0, "l2": size**0.5, "l1": size}[norm]
            yield Sample(f"{name}-{norm}", (origin,), {"norm": norm, "radius": radius, "seed": 3}, f"{norm}-{name}")
            rows = {"norm": norm, "radius": torch.rand(shape[0]) * radius, "seed": -5 << 40, "offset": 7 << 33}
            yield Sample(f"{name}-{norm}-rows", (origin,), rows, f"{norm}-per_sample")
            bounds = {"lower": torch.rand(shape[-1]) * 0.1, "upper": 0.6, "norm": norm, "radius": radius, "seed": 0}
            yield Sample(f"{name}-{norm}-bounds", (origin,), bounds, f"{norm}-bounds")
    origin = torch.rand(3, 4, 5, 6).to(dtype)
    for norm in NORMS:
        options = {"norm": norm, "radius": 0.5, "seed": 1}
        yield Sample(
            f"{norm}-channels_last", (origin.contiguous(memory_format=torch.channels_last),), options, f"{norm}-rows"
        )
        yield Sample(f"{norm}-no_radius", (origin,), {**options, "radius": 0.0}, f"{norm}-zero")
        yield Sample(f"{norm}-empty", (origin[:0],), options, "empty")


def raw_args(sample: Sample) -> tuple[Any, ...]:
    options = sample.kwargs
    return (
        *sample.args, options["norm"], *number_raw(options["radius"]), *bounds_raw(sample), options["seed"],
        options.get("offset", 0),
    )  # fmt: skip


X = torch.zeros(4, 3)
OPTIONS = {"norm": "linf", "radius": 0.1, "seed": 0}

RANDOM_START = OpCase(
    name="random_start",
    function=ops.random_start,
    reference=random_start,
    oracle=random_start_oracle,
    samples=samples,
    raw_args=raw_args,
    dtypes=FLOATING,
    tolerance={
        torch.float32: (1e-6, 1e-6),
        torch.float64: (1e-6, 1e-6),
        torch.bfloat16: (2**-7, 2**-9),
        torch.float16: (2**-10, 2**-12),
    },
    reason="the noise has float32 precision in every type; half types then take one step towards the origin",
    variants=frozenset(
        {f"{norm}-{kind}" for norm in NORMS for kind in (*SHAPES, "per_sample", "bounds", "rows", "zero")} | {"empty"}
    ),
    keeps_channels_last=True,
    errors=(
        BadCall(TypeError, "origin: expected a tensor, got int", (1,), OPTIONS),
        BadCall(TypeError, "origin: expected float32.*got torch.uint8", (X.byte(),), OPTIONS),
        BadCall(ValueError, r"origin: expected \[N, \*\]", (X[0, 0],), OPTIONS),
        BadCall(ValueError, "norm: expected one of .*got 'l7'", (X,), {**OPTIONS, "norm": "l7"}),
        BadCall(ValueError, "radius: expected >= 0, got -0.1", (X,), {**OPTIONS, "radius": -0.1}),
        BadCall(
            ValueError, r"radius: expected a number or \[N\] with N = 4, got \[3\]", (X,), {**OPTIONS, "radius": X[0]}
        ),
        BadCall(ValueError, "upper: expected a number or a tensor that broadcasts", (X,), {**OPTIONS, "upper": X[:2]}),
        BadCall(ValueError, "lower: expected at most upper", (X,), {**OPTIONS, "lower": 2.0}),
        BadCall(TypeError, "seed: expected an int, got float", (X,), {**OPTIONS, "seed": 1.0}),
        BadCall(ValueError, "seed: expected .*got 9223372036854775808", (X,), {**OPTIONS, "seed": 2**63}),
        BadCall(TypeError, "offset: expected an int, got bool", (X,), {**OPTIONS, "offset": True}),
    ),
)
