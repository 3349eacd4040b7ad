"""multi_batch_norm on a card, forward and backward apart, against split and cat, torch.compile, torch's batch norm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu_check import cases_mixture
from benchmarks.gpu_check.plan import Planned, as_tuple, compiled, deferred, max_error, name_of, near
from benchmarks.harness import Case
from mdprop_ext import ops
from mdprop_ext.reference.multi_batch_norm import multi_batch_norm as reference

# Layers of a ResNet-50 at 224 x 224, of a CIFAR network, of an embedding head and of a video network.
RESNET = (
    *((64, 256, 56, 56), (64, 64, 112, 112), (256, 512, 28, 28)),
    *((64, 1024, 14, 14), (64, 2048, 7, 7), (64, 64, 56, 56)),
)
LARGE = ((256, 64, 112, 112), (256, 256, 56, 56))
CIFAR = ((128, 64, 32, 32), (8, 16, 32, 32))
OTHERS = ((4096, 512), (8, 64, 16, 56, 56))
SPLITS = ("90-10", "interleaved")
CHECKED_CHANNELS = 8  # that are compared with float64
LAYOUTS = ("nchw", "channels_last")


@dataclass(frozen=True)
class Setting:
    """One row.

    ``split`` is "" for branches of equal size, one after the other; "90-10"; or "interleaved" ids. ``extra`` is what
    the op fuses, "", "relu" or "add relu".
    """

    shape: tuple[int, ...]
    layout: str
    dtype: torch.dtype
    direction: str
    branches: int = 2
    extra: str = ""
    split: str = ""

    @property
    def name(self) -> str:
        """What the case column says."""
        words = ("x".join(map(str, self.shape)), self.layout, self.direction, f"B {self.branches}")
        return " ".join(filter(None, (*words, self.split, self.extra)))

    def branch(self, device: str | torch.device) -> list[int] | Tensor:
        """The sizes of the branches, or the branch of each sample."""
        samples = self.shape[0]
        if self.split == "interleaved":
            return torch.arange(samples, device=device) % self.branches
        if self.split == "90-10":
            return [samples - samples // 10, samples // 10]
        return [samples // self.branches] * self.branches


def settings() -> list[Setting]:
    """The most telling first: both dtypes and layouts at one shape, then shapes, branches and fusions."""
    half, single = torch.bfloat16, torch.float32
    both = ("forward", "backward")
    rows = [Setting(RESNET[0], x, dtype, way) for dtype in (half, single) for x in LAYOUTS for way in both]
    rows += [Setting(RESNET[0], x, half, way, 1) for x in LAYOUTS for way in both]
    rows += [Setting(RESNET[0], x, half, way, 2, "add relu") for x in LAYOUTS for way in both]
    rows += [Setting(shape, x, half, way) for shape in RESNET[1:] for x in LAYOUTS for way in both]
    rows += [Setting(shape, x, single, way, 2, "relu") for shape in CIFAR for x in LAYOUTS for way in both]
    rows += [Setting(RESNET[0], "nchw", half, way, 2, split=split) for split in SPLITS for way in both]
    rows += [Setting(shape, "nchw", single, way) for shape in OTHERS for way in both]
    rows += [Setting(RESNET[0], x, half, way, branches) for branches in (4, 8) for x in LAYOUTS for way in both]
    rows += [Setting(shape, x, half, way) for shape in LARGE for x in LAYOUTS for way in both]
    return rows + [Setting(LARGE[0], x, single, way) for x in LAYOUTS for way in both]


def plan() -> list[Planned]:
    """All rows of multi_batch_norm."""
    rows = [
        Planned("multi_batch_norm", row.name, name_of(row.dtype), partial(case, row), f"{row.layout} {row.direction}")
        for row in settings()
    ]
    return [*rows[:8], *cases_mixture.plan(), *rows[8:]]


def plain(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, *, activation: str | None) -> Tensor:
    """torch's own batch norm of one branch, which is cuDNN's where torch chooses that, and what follows it."""
    y = F.batch_norm(x, None, None, weight[0], bias[0], training=True)
    y = y if residual is None else y + residual
    return y if activation is None else y.relu()


def viewed(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, *, activation: str | None) -> Tensor:
    """Interleaved branches as more channels of fewer samples: one batch norm of torch, for contiguous NCHW only."""
    branches = len(weight)
    together = x.view(len(x) // branches, branches * x.shape[1], *x.shape[2:])
    y = F.batch_norm(together, None, None, weight.flatten(), bias.flatten(), training=True)
    return y.view_as(x)


def routed(function: Callable[..., Tensor], branch: list[int] | Tensor) -> Callable[..., Tensor]:
    """Training with the statistics of the batch, by the op or by its reference."""

    def call(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, *, activation: str | None) -> Tensor:
        added = {} if residual is None else {"residual": residual}
        return function(x, weight, bias, None, None, branch=branch, training=True, activation=activation, **added)

    return call


def runner(function: Callable[..., Tensor], inputs: list[Tensor], gradient: Tensor, row: Setting) -> Callable[[], Any]:
    """Forward without a graph, or backward alone."""
    residual = inputs[3] if len(inputs) > 3 else None
    call = partial(function, *inputs[:3], residual, activation="relu" if row.extra else None)
    if row.direction == "forward":

        def forward() -> Tensor:
            with torch.no_grad():
                return call()

        return forward
    y = call()
    return lambda: as_tuple(torch.autograd.grad(y, inputs, gradient, retain_graph=True))


def few_channels(results: Any) -> tuple[Tensor, ...]:
    """The first channels of each result: ``[N, C, *]`` or ``[B, C]``."""
    return tuple(result[:, :CHECKED_CHANNELS] for result in as_tuple(results))


def exact(inputs: list[Tensor], gradient: Tensor, row: Setting) -> tuple[Tensor, ...]:
    """What the first channels should be, in float64: channels do not depend on each other."""
    few = [tensor.detach().double().requires_grad_() for tensor in few_channels(tuple(inputs))]
    return as_tuple(
        runner(routed(reference, row.branch(gradient.device)), few, few_channels(gradient)[0].double(), row)()
    )


def case(row: Setting, device: str = "cuda") -> Case:
    """The tensors and peers of a row."""
    torch.manual_seed(0)
    x = torch.randn(row.shape, device=device).to(row.dtype)
    if row.layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    tables = [torch.rand(row.branches, row.shape[1], device=device) + 0.5 for _ in range(2)]
    inputs = [x, *tables, *([torch.randn_like(x)] if "add" in row.extra else [])]
    for tensor in inputs:
        tensor.requires_grad_()
    gradient = torch.randn_like(x)
    branch = row.branch(device)
    functions = {"reference": routed(reference, branch), "compile": compiled(routed(reference, branch))}
    if row.branches == 1:
        functions |= {"batch_norm": plain, "compiled_batch_norm": compiled(plain)}
    if row.split == "interleaved":
        functions |= {"view": viewed}
    on_device = torch.as_tensor(branch, device=device)  # as a network passes them on
    ours = runner(routed(ops.multi_batch_norm, on_device), inputs, gradient, row)
    units = 2 if row.direction == "forward" else 3  # tensors that must be read or written
    return Case(
        op="multi_batch_norm",
        case=row.name,
        dtype=name_of(row.dtype),
        device=device,
        ours=ours,
        peers={name: deferred(runner, function, inputs, gradient, row) for name, function in functions.items()},
        check=near(1e-4 if row.dtype == torch.float32 else 2e-2),
        work=x.numel(),
        unit="values/s",
        least_bytes=(units + ("add" in row.extra)) * x.nbytes,
        figures=lambda: {"max_error": max_error(few_channels(ours()), exact(inputs, gradient, row))},
    )
