"""The contract row of multi_batch_norm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from op_case import FLOATING, BadCall, OpCase, Sample
from oracles.multi_batch_norm import multi_batch_norm_oracle

from mdprop_ext import ops
from mdprop_ext.reference import multi_batch_norm as reference


def with_residual(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The function with the residual as sixth positional argument, so that it is treated like the other tensors."""

    def call(*args: Any, **options: Any) -> torch.Tensor:
        return function(*args[:5], residual=args[5] if len(args) > 5 else None, **options)

    return call


# Planes shorter than, around and above the kernel's tile of 1,024 values; rows whose channels fill wide packs, single
# vectors and the rest, in one block of rows and several; more than 4 MB.
SHAPES = {
    "planes_gathered": (9, 5, 7, 7),
    "planes_tiled": (4, 3, 33, 32),
    "planes_3d": (6, 3, 3, 4, 5),
    "planes_1d": (8, 6, 5),
    "planes_large": (5, 6, 192, 192),
    "rows_1d": (37, 19),
    "rows_wide": (18, 300, 3, 3),
    "rows_narrow": (8, 3, 17, 9),
    "rows_blocks": (8, 70, 13, 12),
    "rows_3d": (6, 4, 3, 2, 5),
}


def tables(branches: int, channels: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Random weight, bias, running mean and positive running variance ``[B, C]``."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    weight, bias, mean = (torch.randn(branches, channels, dtype=wide) for _ in range(3))
    return [weight, bias, mean, torch.rand(branches, channels, dtype=wide) + 0.5]


def batch(name: str, dtype: torch.dtype) -> torch.Tensor:
    """A random batch of the named shape, channels_last where its name says rows."""
    x = (torch.randn(SHAPES[name]) * 2 + 3).to(dtype)
    if name.startswith("rows") and x.dim() > 2:
        return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)
    return x


def branch_arguments(samples: int) -> dict[str, Any]:
    """Every way to route: unequal sizes with an empty branch, sizes as a tensor, ids in any order, none."""
    mixed = torch.tensor([2, 0, 2, 0, 1, 1, 0, 2, 0])
    ids = mixed[torch.arange(samples) % len(mixed)]
    if samples < 6:
        ids = torch.tensor([2, 0, 0, 2, 2])[:samples]
    few = samples // 3
    sizes = [samples - few, 0, few]
    return {"sizes": sizes, "size_tensor": torch.tensor([few, samples - few, 0]), "ids": ids, "none": None}


def samples(dtype: torch.dtype) -> Iterator[Sample]:
    for name, shape in SHAPES.items():
        for number, (kind, branch) in enumerate(branch_arguments(shape[0]).items()):
            if name == "planes_large" and kind != "ids":
                continue
            for training in (True, False):
                options = {"branch": branch, "training": training, "activation": "relu" if number % 2 else None}
                args = (batch(name, dtype), *tables(3, shape[1], dtype))
                yield Sample(f"{name}-{kind}-{training}", (*args, None), options, name)
                if kind in ("ids", "sizes"):
                    options = {**options, "activation": "relu" if training else None}
                    added = (*args, batch(name, dtype))
                    yield Sample(f"{name}-{kind}-{training}-residual", added, options, f"{name}_residual")
    x = batch("planes_gathered", dtype)
    weight, bias, mean, var = tables(3, 5, dtype)
    routed = {"branch": torch.tensor([2, 0, 2, 0, 1, 1, 0, 2, 0])}
    options = {**routed, "training": True, "momentum": 0.3}
    yield Sample("no_affine", (x, None, None, mean, var, None), options, "no_affine")
    yield Sample("weight_only", (x, weight, None, mean, var, None), {**routed, "activation": "relu"}, "no_affine")
    yield Sample("bias_only", (x, None, bias, mean, var, x), {**routed, "activation": "relu"}, "no_affine")
    for part in ((weight, bias), (weight, None), (None, bias)):
        yield Sample("no_statistics", (x, *part, None, None, None), {**routed, "training": True}, "no_statistics")
    shared = (x, weight[:1].expand(3, -1), bias[:1].expand(3, -1), mean, var, x)
    yield Sample("shared_affine", shared, {**routed, "training": True, "activation": "relu"}, "shared_affine")
    for training in (True, False):
        options = {"branch": [0, 0, 0], "training": training}
        yield Sample(f"no_samples-{training}", (x[:0], weight, bias, mean, var, x[:0]), options, "empty")
        options = {"branch": [9, 0, 0], "training": training, "activation": "relu"}
        yield Sample(f"no_values-{training}", (x[:, :, :0], weight, bias, mean, var, x[:, :, :0]), options, "empty")
        no_channels = [table[:, :0] for table in (weight, bias, mean, var)]
        yield Sample(f"no_channels-{training}", (x[:, :0], *no_channels, None), options, "empty")


def raw_args(sample: Sample) -> tuple[Any, ...]:
    branch = sample.kwargs.get("branch")
    is_ids = isinstance(branch, torch.Tensor) and branch.shape[0] == sample.args[0].shape[0]
    sizes = None if branch is None or is_ids else torch.as_tensor(branch)
    options = (sample.kwargs.get("training", False), 1e-5, sample.kwargs.get("activation"))
    return (*sample.args, branch if is_ids else None, sizes, *options)


def gradcheck_samples() -> Iterator[Sample]:
    for shape in ((6, 2, 3), (5, 3)):
        for training in (True, False):
            for activation in (None, "relu"):
                options = {"branch": [2, 0, shape[0] - 2], "training": training, "activation": activation}
                x, residual = (torch.randn(shape, dtype=torch.float64) for _ in range(2))
                for added in (None, residual):
                    yield Sample("gradcheck", (x, *tables(3, shape[1], torch.float64), added), options)


X = torch.zeros(4, 3, 2, 2)
TABLES = (torch.ones(2, 3), torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 3))

MULTI_BATCH_NORM = OpCase(
    name="multi_batch_norm",
    function=with_residual(ops.multi_batch_norm),
    reference=with_residual(reference.multi_batch_norm),
    oracle=with_residual(multi_batch_norm_oracle),
    samples=samples,
    raw_args=raw_args,
    dtypes=FLOATING,
    tolerance={
        torch.float32: (3e-6, 3e-6),
        torch.float64: (1e-13, 1e-13),
        torch.bfloat16: (2**-8, 1e-5),
        torch.float16: (2**-11, 1e-5),
    },
    reason="one rounding to the storage type; a few fp32 roundings of the mean and of values of size 3",
    variants=frozenset(
        {*SHAPES, *(f"{name}_residual" for name in SHAPES), "no_affine", "no_statistics", "shared_affine", "empty"}
    ),
    mutates=(3, 4),
    differentiable=(0, 1, 2, 5),
    gradcheck_samples=gradcheck_samples,
    keeps_channels_last=True,
    twice_differentiable=True,
    errors=(
        BadCall(TypeError, "x: expected a tensor, got list", ([1.0], *TABLES)),
        BadCall(TypeError, "x: expected float32.*got torch.int64", (X.long(), *TABLES)),
        BadCall(ValueError, r"x: expected \[N, C, \*\], got \[4\]", (X[:, 0, 0, 0], *TABLES)),
        BadCall(ValueError, r"weight: expected \[B, C\].*got \[2, 4\]", (X, torch.ones(2, 4), *TABLES[1:])),
        BadCall(ValueError, r"running_var: expected \[B, C\].*got \[1, 3\]", (X, *TABLES[:3], torch.ones(1, 3))),
        BadCall(ValueError, "running_mean, running_var: needed unless training", (X, *TABLES[:2], None, None)),
        BadCall(ValueError, r"branch: sizes must be >= 0 and add up to N = 4", (X, *TABLES), {"branch": [1, 2]}),
        BadCall(ValueError, r"branch: expected 2 sizes.*got 3", (X, *TABLES), {"branch": [1, 1, 2]}),
        BadCall(
            ValueError,
            r"branch: ids must be in \[0, 2\), got 0 to 2",
            (X, *TABLES),
            {"branch": torch.tensor([0, 1, 2, 0])},
        ),
        BadCall(TypeError, "branch: expected ids.*int64.*got torch.float32", (X, *TABLES), {"branch": torch.zeros(4)}),
        BadCall(TypeError, "branch: expected a sequence of ints", (X, *TABLES), {"branch": [1.5, 2.5]}),
        BadCall(
            ValueError,
            "branch: ids .* need weight or running",
            (X, *[None] * 4),
            {"branch": torch.tensor([0, 1, 1, 0]), "training": True},
        ),
        BadCall(
            ValueError,
            "x: expected more than one value a channel in every branch when training",
            (X[:, :, 0, 0], *TABLES),
            {"branch": [1, 3], "training": True},
        ),
        BadCall(
            ValueError,
            r"residual: expected the shape of x, \[4, 3, 2, 2\], got \[4, 3, 2\]",
            (X, *TABLES, X[0:4, :, 0]),
        ),
        BadCall(TypeError, "residual: expected the dtype of x.*got torch.float64", (X, *TABLES, X.double())),
        BadCall(ValueError, "activation: expected None or one of", (X, *TABLES), {"activation": "gelu"}),
        BadCall(ValueError, "momentum: expected a number", (X, *TABLES), {"training": True, "momentum": None}),
        BadCall(ValueError, r"momentum: expected a number in \[0, 1\], got 5", (X, *TABLES), {"momentum": 5}),
        BadCall(ValueError, "eps: expected a number >= 0, got -1", (X, *TABLES), {"eps": -1}),
        BadCall(ValueError, "running_mean, running_var: expected both", (X, *TABLES[:3], None), {"training": True}),
    ),
)
