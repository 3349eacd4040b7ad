"""pgd_step against the usual chain of small PyTorch kernels, and against the exact reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Case, close
from mdprop_ext import ops
from mdprop_ext.reference.pgd_step import pgd_step as reference

SHAPES = ((64, 1, 28, 28), (128, 3, 32, 32), (16, 3, 224, 224), (64, 3, 224, 224))
QUICK = (128, 3, 32, 32)


def eager(x: Tensor, grad: Tensor, origin: Tensor, *, norm: str, step: float, radius: float) -> Tensor:
    """What attack libraries do: six kernels that ignore rounding at the surface of the ball."""
    if norm == "linf":
        moved = x + step * grad.sign()
        return torch.clamp(origin + torch.clamp(moved - origin, -radius, radius), 0, 1)
    sides = (-1, *[1] * (x.dim() - 1))
    moved = x + step * grad / grad.flatten(1).norm(dim=1).view(sides)
    delta = moved - origin
    shrink = (radius / delta.flatten(1).norm(dim=1).clamp(min=1e-12)).clamp(max=1).view(sides)
    return torch.clamp(origin + delta * shrink, 0, 1)


def cases() -> Iterator[Case]:
    for shape in SHAPES:
        for norm in ("linf", "l2"):
            for dtype in (torch.float32, torch.bfloat16) if shape == QUICK else (torch.float32,):
                yield case(shape, norm, dtype)


def case(shape: tuple[int, ...], norm: str, dtype: torch.dtype) -> Case:
    torch.manual_seed(0)
    origin = torch.rand(shape).to(dtype)
    args = ((origin + 0.01).clamp(0, 1), torch.randn(shape).to(dtype), origin)
    scale = origin[0].numel() ** 0.5 if norm == "l2" else 1.0
    options: dict[str, Any] = {"norm": norm, "step": 2 / 255 * scale, "radius": 8 / 255 * scale}
    return Case(
        op="pgd_step",
        case=f"{'x'.join(map(str, shape))} {norm}",
        dtype=str(dtype).removeprefix("torch."),
        ours=lambda: ops.pgd_step(*args, **options),
        peers={"eager": lambda: eager(*args, **options), "reference": lambda: reference(*args, **options)},
        check=close(1e-5 if dtype == torch.float32 else 2e-2),
        work=origin.numel(),
        unit="values/s",
        least_bytes=4 * origin.numel() * origin.element_size(),
        quick=shape == QUICK and dtype == torch.float32,
    )
