"""pgd_step on a card against the usual chain of small kernels, for l1 with a sort, and torch.compile of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench_pgd_step import eager
from benchmarks.gpu_check.plan import Planned, compiled, name_of
from benchmarks.harness import Case, close
from mdprop_ext import ops
from mdprop_ext.reference.pgd_step import pgd_step as reference

SHAPES = ((128, 3, 224, 224), (512, 3, 32, 32), (32, 3, 224, 224), (1, 3, 224, 224))
KINDS = ("linf", "l2", "l1", "linf momentum")


def plan() -> list[Planned]:
    """All rows of pgd_step."""
    rows = [(shape, kind, torch.float32) for shape in SHAPES for kind in KINDS]
    rows += [(SHAPES[0], kind, torch.bfloat16) for kind in KINDS if kind != "l1"]  # whose sort needs fp32
    return [Planned(f"pgd_step {label(*row)} {name_of(row[2])}", partial(case, *row)) for row in rows]


def label(shape: tuple[int, ...], kind: str, dtype: torch.dtype) -> str:
    """What the case column says."""
    return f"{'x'.join(map(str, shape))} {kind}"


def momentum(x: Tensor, grad: Tensor, origin: Tensor, *, velocity: Tensor, **options: Any) -> Tensor:
    """MI-FGSM as attack libraries write it; changes ``velocity``."""
    sides = (-1, *[1] * (x.dim() - 1))
    velocity.add_(grad / grad.abs().flatten(1).mean(dim=1).view(sides))
    return eager(x, velocity, origin, **options)


def case(shape: tuple[int, ...], kind: str, dtype: torch.dtype) -> Case:
    """The tensors and peers of a row."""
    torch.manual_seed(0)
    norm = kind.split()[0]
    origin = torch.rand(shape, device="cuda").to(dtype)
    x = (origin.float() + 0.02 * torch.randn(shape, device="cuda")).clamp(0, 1).to(dtype)
    args = (x, torch.randn(shape, device="cuda").to(dtype), origin)
    values = origin[0].numel()
    length = {"linf": 8 / 255, "l2": 8 / 255 * values**0.5, "l1": 8 / 255 * values / 4}[norm]
    options: dict[str, Any] = {"norm": norm, "step": 8 / 255 if norm == "l1" else length / 4, "radius": length}
    functions: dict[str, Any] = {"eager": eager, "compile": compiled(eager), "reference": reference}
    if kind == "linf momentum":
        functions |= {"eager": momentum, "compile": compiled(momentum)}

    def bound(function: Any) -> Any:
        # Each side has a velocity of its own, which starts from the same values.
        own = {"velocity": torch.ones_like(x)} if "momentum" in kind else {}
        return lambda: function(*args, **options, **own)

    units = 6 if "momentum" in kind else 4  # x, gradient, origin, velocity read; result and velocity written
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-3 if norm == "l1" else 2e-5
    return Case(
        op="pgd_step",
        case=label(shape, kind, dtype),
        dtype=name_of(dtype),
        device="cuda",
        ours=bound(ops.pgd_step),
        peers={name: bound(function) for name, function in functions.items()},
        check=close(tolerance),
        work=origin.numel(),
        unit="values/s",
        least_bytes=units * origin.nbytes,
    )
