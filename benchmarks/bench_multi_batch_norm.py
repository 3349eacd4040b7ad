"""multi_batch_norm against splitting the batch, one BatchNorm a branch, and concatenating."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.harness import Case, close
from mdprop_ext import ops
from mdprop_ext.reference import multi_batch_norm as reference

# [N, C, H, W] of a small conv net, CIFAR and ImageNet ResNets; the last two are a late layer and an embedding head.
SHAPES = (
    (128, 64, 28, 28),
    (128, 64, 14, 14),
    (128, 64, 32, 32),
    (16, 64, 56, 56),
    (16, 256, 56, 56),
    (64, 512, 7, 7),
    (4096, 512),
)
QUICK = ((128, 64, 28, 28),)


def step(
    function: Callable[..., Any], inputs: tuple[torch.Tensor, ...], gradient: torch.Tensor, options: dict[str, Any]
):
    """Forward with updated statistics, and backward where there is a gradient to propagate."""

    def run() -> tuple[torch.Tensor, ...]:
        y = function(*inputs, **options)
        if not options["training"]:
            return (y,)
        return (y.detach(), *torch.autograd.grad(y, inputs[:3], gradient))

    return run


def cases() -> Iterator[Case]:
    for shape in SHAPES:
        formats = ("nchw", "channels_last") if len(shape) == 4 else ("rows",)
        for memory_format in formats:
            for dtype in (torch.float32, torch.bfloat16) if shape in QUICK else (torch.float32,):
                for activation in (None, "relu"):
                    for training in (True, False):
                        yield case(shape, memory_format, dtype, activation, training)


def case(
    shape: tuple[int, ...], memory_format: str, dtype: torch.dtype, activation: str | None, training: bool
) -> Case:
    torch.manual_seed(0)
    x = torch.randn(shape).to(dtype)
    if memory_format == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    tables = [torch.full((2, shape[1]), value) for value in (1.0, 0.0, 0.0, 1.0)]
    inputs = (x.requires_grad_(training), *(t.requires_grad_(training and i < 2) for i, t in enumerate(tables)))
    options = {"branch": [shape[0] // 2] * 2, "training": training, "activation": activation, "momentum": 0.0}
    gradient = torch.randn_like(x)
    words = ["x".join(map(str, shape)), memory_format, "train" if training else "eval", activation]
    units = 5 if training else 2  # forward reads and writes x; backward reads two tensors and writes one
    return Case(
        op="multi_batch_norm",
        case=" ".join(filter(None, words)),
        dtype=str(dtype).removeprefix("torch."),
        ours=step(ops.multi_batch_norm, inputs, gradient, options),
        peers={"split": step(reference.multi_batch_norm, inputs, gradient, options)},
        check=close(2e-3 if dtype == torch.float32 else 0.3),
        work=x.numel(),
        unit="values/s",
        least_bytes=units * x.numel() * x.element_size(),
        quick=shape in QUICK and dtype == torch.float32 and training,
    )
