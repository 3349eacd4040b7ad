"""The contract row of multi_batch_norm_mixture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from op_case import FLOATING, BadCall, OpCase, Sample
from op_case_multi_batch_norm import batch, tables
from oracles.multi_batch_norm_mixture import multi_batch_norm_mixture_oracle

from mdprop_ext import ops
from mdprop_ext.reference import multi_batch_norm_mixture as reference

CHOSEN = ("planes_gathered", "planes_tiled", "planes_3d", "rows_1d", "rows_wide", "rows_narrow")


def probabilities(samples: int, dtype: torch.dtype) -> torch.Tensor:
    """Rows that add up to 1, of which some take one branch only."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    probs = torch.rand(samples, 3, dtype=wide)
    probs[::3, 1] = 0
    probs[1::4] = torch.tensor([0.0, 0.0, 1.0], dtype=wide)
    return probs / probs.sum(1, keepdim=True)


def samples(dtype: torch.dtype) -> Iterator[Sample]:
    for name in CHOSEN:
        x = batch(name, dtype)
        weight, bias, mean, var = tables(3, x.shape[1], dtype)
        probs = probabilities(x.shape[0], dtype)
        yield Sample(name, (x, weight, bias, mean, var, probs), {}, name)
    yield Sample("no_affine", (x, None, None, mean, var, probs), {"eps": 1e-3}, "no_affine")
    yield Sample("weight_only", (x, weight, None, mean, var, probs), {}, "no_affine")
    yield Sample("not_normalised", (x, weight, bias, mean, var, 2 * probs - 1), {}, "not_normalised")
    yield Sample("no_samples", (x[:0], weight, bias, mean, var, probs[:0]), {}, "empty")


def raw_args(sample: Sample) -> tuple[Any, ...]:
    return (*sample.args, sample.kwargs.get("eps", 1e-5))


def gradcheck_samples() -> Iterator[Sample]:
    for shape in ((4, 2, 3), (5, 3)):
        x = torch.randn(shape, dtype=torch.float64)
        probs = probabilities(shape[0], torch.float64)
        yield Sample("gradcheck", (x, *tables(3, shape[1], torch.float64), probs))
        yield Sample("gradcheck", (x, None, None, *tables(3, shape[1], torch.float64)[2:], probs))


X, ONES, ZEROS = torch.zeros(4, 3, 2, 2), torch.ones(2, 3), torch.zeros(2, 3)
TABLES = (ONES, ZEROS, ZEROS, ONES)
PROBS = torch.full((4, 2), 0.5)

MULTI_BATCH_NORM_MIXTURE = OpCase(
    name="multi_batch_norm_mixture",
    function=ops.multi_batch_norm_mixture,
    reference=reference.multi_batch_norm_mixture,
    oracle=multi_batch_norm_mixture_oracle,
    samples=samples,
    raw_args=raw_args,
    dtypes=FLOATING,
    tolerance={
        torch.float32: (3e-6, 1e-5),
        torch.float64: (1e-13, 1e-13),
        torch.bfloat16: (2**-8, 2e-5),
        torch.float16: (2**-11, 2e-5),
    },
    reason="one rounding to the storage type; a few fp32 roundings of terms that cancel between branches",
    variants=frozenset({*CHOSEN, "no_affine", "not_normalised", "empty"}),
    differentiable=(0, 1, 2, 5),
    gradcheck_samples=gradcheck_samples,
    keeps_channels_last=True,
    errors=(
        BadCall(TypeError, "x: expected a tensor, got list", ([1.0], *TABLES, PROBS)),
        BadCall(ValueError, r"x: expected \[N, C, \*\], got \[4\]", (X[:, 0, 0, 0], *TABLES, PROBS)),
        BadCall(TypeError, "running_mean: expected a tensor, got NoneType", (X, *TABLES[:2], None, ONES, PROBS)),
        BadCall(ValueError, r"bias: expected \[B, C\].*got \[2, 4\]", (X, ONES, torch.ones(2, 4), *TABLES[2:], PROBS)),
        BadCall(ValueError, r"probs: expected \[N, B\] with N = 4 of x, got \[3, 2\]", (X, *TABLES, PROBS[:3])),
        BadCall(TypeError, "probs: expected float32.*got torch.int64", (X, *TABLES, PROBS.long())),
        BadCall(ValueError, "eps: expected a number >= 0, got -1", (X, *TABLES, PROBS), {"eps": -1}),
    ),
)
