"""Batches in shares, one a process: trained on with synchronised layers, and joined in one process."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from nn.norm_layers import CHANNELS, randomize
from torch import Tensor

from mdprop_ext.nn import MultiBatchNorm1d, MultiBatchNorm2d, MultiBatchNorm3d, convert_sync, use_branch, use_branches

BRANCHES = ("main", "st", "mt")


@dataclass(frozen=True)
class Case:
    """How each process routes its share (ids, the name of one branch, or None without a route), and the layer."""

    shares: tuple[list[int] | str | None, ...]
    sizes: tuple[int, ...] = ()  # where shares are no ids
    layer: Any = MultiBatchNorm2d
    trailing: tuple[int, ...] = (3, 2)
    options: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float64
    residual: bool = False
    channels_last: bool = False
    autocast: bool = False
    tolerance: float = 1e-11


MIXED: Any = ([0, 2, 0, 0, 2], [2, 0, 0, 0, 2, 2, 0])
RELU = {"activation": "relu"}
CASES = {
    "mixed": Case(MIXED),
    "a branch in one process only": Case(([0, 2, 2, 0], [0, 0, 0, 1, 1])),
    "unequal sizes": Case(([0, 1, 1, 1, 1, 1, 2], [0, 0, 1])),
    "an empty batch": Case(([], [0, 1, 1, 0, 2])),
    "an empty batch, joined again": Case(([1, 0, 1, 0], []), options=RELU, residual=True),
    "one value in each process": Case(([1], [1, 0, 0]), layer=MultiBatchNorm1d, trailing=()),
    "no route": Case((None, None), (4, 3)),
    "one branch": Case(("st", "st"), (3, 5)),
    "another branch in each process": Case(("st", "mt"), (4, 5)),
    "a route in one process only": Case((None, [2, 1, 0, 2]), (4, 0)),
    "no route in the last": Case(("mt", None), (3, 4), options=RELU, residual=True),
    "relu": Case(MIXED, options=RELU),
    "residual": Case(MIXED, residual=True),
    "residual and relu": Case(MIXED, options=RELU, residual=True),
    "channels_last": Case(MIXED, options=RELU, residual=True, channels_last=True),
    "1d": Case(MIXED, layer=MultiBatchNorm1d, trailing=()),
    "3d": Case(MIXED, layer=MultiBatchNorm3d, trailing=(2, 1, 3)),
    "share_affine": Case(MIXED, options={"share_affine": True}),
    "no affine": Case(MIXED, options={"affine": False}),
    "no running statistics": Case(MIXED, options={"track_running_stats": False}),
    "cumulative": Case(([0, 2, 0, 0, 2], [2, 0, 0, 0, 2, 2, 0]), options={"momentum": None}),
    "fp32": Case(MIXED, dtype=torch.float32, options=RELU, residual=True, tolerance=1e-5),
    "fp16": Case(MIXED, dtype=torch.float16, tolerance=2e-3),
    "bf16": Case(MIXED, dtype=torch.bfloat16, options=RELU, residual=True, tolerance=2e-2),
    "autocast": Case(MIXED, dtype=torch.bfloat16, options=RELU, residual=True, autocast=True, tolerance=2e-2),
    "three, one without samples": Case(([0, 1, 1], [], [1, 2, 0, 2])),
    "three, mixed routes": Case((None, "mt", [1, 1, 0, 2]), (3, 2, 0), options={**RELU, "momentum": None}),
}


def of_processes(count: int) -> list[str]:
    return [name for name, case in CASES.items() if len(case.shares) == count]


def train(rank: int, names: list[str]) -> dict[str, dict[str, Any]]:
    """Trains on this process's share of every case."""
    return {name: _steps(name, rank) for name in names}


def train_joined(name: str) -> dict[str, Any]:
    """Trains one layer, without a process group, on all shares joined."""
    return _steps(name, None)


def _steps(name: str, rank: int | None) -> dict[str, Any]:
    """Two steps on the share of a rank, or on all: what they give by name, and gradients and state at the end."""
    case = CASES[name]
    layer = _layer(case)
    if rank is not None:
        convert_sync(layer)
    counts = [len(share) if isinstance(share, list) else size for share, size in zip_shares(case)]
    begin = 0 if rank is None else sum(counts[:rank])
    part = slice(begin, sum(counts) if rank is None else begin + counts[rank])
    results: dict[str, Any] = {}
    for step in range(2):
        x, residual, upstream = (tensor[part] for tensor in _batch(case, sum(counts), step))
        if case.channels_last:
            x, residual, upstream = (t.contiguous(memory_format=torch.channels_last) for t in (x, residual, upstream))
        x.requires_grad_()
        residual = residual.float() if case.autocast else residual
        residual = residual.requires_grad_() if case.residual else None
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=case.autocast)
        with _route(layer, case, rank), autocast:
            y = layer(x, residual)
        assert y.dtype == x.dtype
        y.backward(upstream)
        results |= {f"y {step}": y.detach(), f"grad_x {step}": x.grad}
        if residual is not None:
            results[f"grad_residual {step}"] = residual.grad
        if case.channels_last:
            assert y.is_contiguous(memory_format=torch.channels_last)
    grads = {name: parameter.grad for name, parameter in layer.named_parameters()}
    return {"samples": results, "grads": grads, "state": copy.deepcopy(layer.state_dict())}


def zip_shares(case: Case) -> list[tuple[list[int] | str | None, int]]:
    return list(zip(case.shares, case.sizes or [0] * len(case.shares), strict=True))


def _layer(case: Case) -> Any:
    layer = randomize(case.layer(CHANNELS, branches=BRANCHES, **case.options))
    return layer.double() if case.dtype == torch.float64 else layer


def _batch(case: Case, count: int, step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    shape = (count, CHANNELS, *case.trailing)
    return [(torch.randn(shape, generator=generator, dtype=torch.float64) + 1).to(case.dtype) for _ in range(3)]


def _route(layer: Any, case: Case, rank: int | None) -> Any:
    if rank is None:
        ids = [BRANCHES.index(share or "main") if not isinstance(share, list) else share for share in case.shares]
        shares = zip(ids, case.sizes or [0] * len(ids), strict=True)
        joined = [b for share, size in shares for b in (share if isinstance(share, list) else [share] * size)]
        return use_branches(layer, torch.tensor(joined))
    share = case.shares[rank]
    if share is None:
        return contextlib.nullcontext()
    return use_branch(layer, share) if isinstance(share, str) else use_branches(layer, torch.tensor(share).long())
