"""pgd_step on a card against the usual chain of small kernels, for l1 with a sort, and torch.compile of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench_pgd_step import eager
from benchmarks.gpu_check.plan import Planned, compiled, max_error, name_of
from benchmarks.harness import Case, close
from mdprop_ext import ops
from mdprop_ext.reference.pgd_step import pgd_step as reference

SHAPES = ((128, 3, 224, 224), (512, 3, 32, 32), (32, 3, 224, 224), (1, 3, 224, 224))
KINDS = ("linf", "l2", "l1", "linf momentum")
# 95 % of the gradient zero; a radius for each sample; bfloat16 result of float32; images as bytes.
VARIANTS = ("l2 sparse", "l1 sparse", "l2 radii", "linf bf16 out", "linf uint8 origin")
CHECKED_SAMPLES = 2  # that are compared with float64


def plan() -> list[Planned]:
    """All rows of pgd_step."""
    single, half = torch.float32, torch.bfloat16
    rows = [(shape, kind, single) for shape in SHAPES[:1] for kind in (*KINDS, *VARIANTS)]
    rows += [(shape, kind, single) for shape in SHAPES[1:] for kind in KINDS]
    rows += [(SHAPES[0], kind, half) for kind in KINDS if kind != "l1"]  # whose sort needs fp32
    return [Planned("pgd_step", label(*row[:2]), name_of(row[2]), partial(case, *row)) for row in rows]


def label(shape: tuple[int, ...], kind: str) -> str:
    """What the case column says."""
    return f"{'x'.join(map(str, shape))} {kind}"


def momentum(x: Tensor, grad: Tensor, origin: Tensor, *, velocity: Tensor, **options: Any) -> Tensor:
    """MI-FGSM as attack libraries write it; changes ``velocity``."""
    sides = (-1, *[1] * (x.dim() - 1))
    velocity.add_(grad / grad.abs().flatten(1).mean(dim=1).view(sides))
    return eager(x, velocity, origin, **options)


def eager_variant(x: Tensor, grad: Tensor, origin: Tensor, *, out: Tensor | None = None, **options: Any) -> Tensor:
    """The chain of kernels for images as bytes, or a result of another dtype, too."""
    centre = origin / 255 if origin.dtype == torch.uint8 else origin
    result = eager(x, grad, centre, **options)
    return result if out is None else out.copy_(result)


def violation(result: Tensor, origin: Tensor, norm: str, radius: float | Tensor) -> float:
    """How far the sample that is farthest out lies outside of its ball, or how deep inside if below 0."""
    centre = origin.double() / 255 if origin.dtype == torch.uint8 else origin.double()
    order = {"linf": float("inf"), "l2": 2.0, "l1": 1.0}[norm]
    return float((torch.linalg.vector_norm((result.double() - centre).flatten(1), order, dim=1) - radius).max())


def options_of(kind: str, x: Tensor) -> dict[str, Any]:
    """The keyword arguments of a row, but for a velocity."""
    norm, values = kind.split()[0], x[0].numel()
    length = {"linf": 8 / 255, "l2": 8 / 255 * values**0.5, "l1": 8 / 255 * values / 4}[norm]
    options: dict[str, Any] = {"norm": norm, "step": 8 / 255 if norm == "l1" else length / 4, "radius": length}
    if "radii" in kind:
        options["radius"] = length * torch.linspace(0.5, 1, len(x), device=x.device)
    if "out" in kind:
        options["out"] = torch.empty_like(x, dtype=torch.bfloat16)
    return options


def inputs_of(shape: tuple[int, ...], kind: str, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Points, gradients and origins of a row."""
    torch.manual_seed(0)
    origin = torch.rand(shape, device=device).to(dtype)
    if "uint8" in kind:
        origin = torch.randint(256, shape, dtype=torch.uint8, device=device)
    centre = origin.float() / 255 if origin.dtype == torch.uint8 else origin.float()
    x = (centre + 0.02 * torch.randn(shape, device=device)).clamp(0, 1).to(dtype)
    grad = torch.randn(shape, device=device).to(dtype)
    return x, grad * (torch.rand(shape, device=device) < 0.05) if "sparse" in kind else grad, origin


def least_bytes(args: tuple[Tensor, ...], options: dict[str, Any], kind: str) -> int:
    """Points, gradients and origins read, the result written; a velocity is read and written."""
    result: Tensor = options.get("out", args[0])
    return sum(tensor.nbytes for tensor in (*args, result)) + ("momentum" in kind) * 2 * args[0].nbytes


def case(shape: tuple[int, ...], kind: str, dtype: torch.dtype, device: str = "cuda") -> Case:
    """The tensors and peers of a row."""
    args = inputs_of(shape, kind, dtype, device)
    x, norm = args[0], kind.split()[0]
    options = options_of(kind, x)
    chain = momentum if "momentum" in kind else eager_variant
    functions: dict[str, Any] = {"eager": chain, "compile": compiled(chain), "reference": reference}

    def bound(function: Any) -> Any:
        # Each side has a velocity and a target of its own; velocities start from the same values.
        own = {"velocity": torch.ones_like(x)} if "momentum" in kind else {}
        own |= {"out": torch.empty_like(options["out"])} if "out" in options else {}
        return lambda: function(*args, **options | own)

    def figures() -> dict[str, float]:
        few = slice(CHECKED_SAMPLES)
        first: dict[str, Any] = {
            name: value[few] if isinstance(value, Tensor) else value for name, value in options.items()
        }
        first.pop("out", None)
        origin = args[2] if args[2].dtype == torch.uint8 else args[2].double()
        if "momentum" in kind:
            first["velocity"] = torch.ones_like(x[few], dtype=torch.float64)
        exact = reference(x[few].double(), args[1][few].double(), origin[few], **first)
        result = bound(ops.pgd_step)()
        return {
            "max_error": max_error(result[few], exact),
            "bound_violation": violation(result, args[2], norm, options["radius"]),
        }

    halves = dtype == torch.bfloat16 or "out" in kind
    return Case(
        op="pgd_step",
        case=label(shape, kind),
        dtype=name_of(dtype),
        device=device,
        ours=bound(ops.pgd_step),
        peers={name: bound(function) for name, function in functions.items()},
        check=close(2e-2 if halves else 1e-3 if norm == "l1" else 2e-5),
        work=x.numel(),
        unit="values/s",
        least_bytes=least_bytes(args, options, kind),
        figures=figures,
    )
