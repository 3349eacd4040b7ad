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


def eager(x: Tensor, grad: Tensor, origin: Tensor, *, norm: str, step: float, radius: Any) -> Tensor:
    """What attack libraries do: small kernels that ignore rounding at the surface of the ball; for l1 a sort."""
    if norm == "linf":
        moved = x + step * grad.sign()
        return torch.clamp(origin + torch.clamp(moved - origin, -radius, radius), 0, 1)
    if norm == "l1":
        return eager_l1(x + step * grad.sign(), origin, radius).to(x.dtype)
    sides = (-1, *[1] * (x.dim() - 1))
    moved = x + step * grad / grad.flatten(1).norm(dim=1).view(sides)
    delta = moved - origin
    shrink = (radius / delta.flatten(1).norm(dim=1).clamp(min=1e-12)).clamp(max=1).view(sides)
    return torch.clamp(origin + delta * shrink, 0, 1)


def eager_l1(point: Tensor, origin: Tensor, radius: float) -> Tensor:
    """The nearest point of ball and unit box: sorts the points where a value starts to move and where it stops."""
    delta = (point - origin).flatten(1)
    reach = delta.abs()
    room = torch.where(point > origin, 1 - origin, origin).flatten(1)
    turns, order = torch.cat([reach, (reach - room).clamp(min=0)], 1).sort(dim=1, descending=True)
    slope = torch.where(order < reach.shape[1], 1.0, -1.0).cumsum(1)
    sums = torch.nn.functional.pad((slope[:, :-1] * -turns.diff(dim=1)).cumsum(1), (1, 0))
    last = ((sums < radius).sum(1, keepdim=True) - 1).clamp(min=0)
    threshold = turns.gather(1, last) - (radius - sums.gather(1, last)) / slope.gather(1, last).clamp(min=1)
    pull = torch.minimum((reach - threshold.clamp(min=0)).clamp(min=0), room)
    return origin + (delta.sign() * pull).view_as(origin)


def cases() -> Iterator[Case]:
    for shape in SHAPES:
        for norm in ("linf", "l2", "l1"):
            for dtype in (torch.float32, torch.bfloat16) if shape == QUICK else (torch.float32,):
                yield case(shape, norm, dtype)
        yield case(shape, "linf", torch.float32, in_place=True)


def case(shape: tuple[int, ...], norm: str, dtype: torch.dtype, in_place: bool = False) -> Case:
    torch.manual_seed(0)
    origin = torch.rand(shape).to(dtype)
    args = ((origin + 0.01).clamp(0, 1), torch.randn(shape).to(dtype), origin)
    size = origin[0].numel()
    length = size**0.5
    step, radius = {"linf": (0.01, 0.03), "l2": (0.01 * length, 0.03 * length), "l1": (0.05, 12.0)}[norm]
    options: dict[str, Any] = {"norm": norm, "step": step, "radius": radius}
    out = torch.empty_like(origin) if in_place else None
    return Case(
        op="pgd_step",
        case=f"{'x'.join(map(str, shape))} {norm}{', out=' if in_place else ''}",
        dtype=str(dtype).removeprefix("torch."),
        ours=lambda: ops.pgd_step(*args, **options, out=out),
        peers={"eager": lambda: eager(*args, **options), "reference": lambda: reference(*args, **options)},
        check=close(2e-5 if dtype == torch.float32 else 2e-2),
        work=origin.numel(),
        unit="values/s",
        least_bytes=4 * origin.numel() * origin.element_size(),
        quick=shape == QUICK and dtype == torch.float32 and not in_place,
    )
