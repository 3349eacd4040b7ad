"""What is likely to be wrong with the batch norms of a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from mdprop_ext._arguments import check_module
from mdprop_ext.nn.multi_batch_norm import _MultiBatchNorm

_SHOWN = 3
_Finding = tuple[str, str]  # what, advice


@dataclass(frozen=True, repr=False)
class Hazard:
    """Something about a model that is likely to be a mistake.

    Args:
        where: Names of the modules concerned, as in ``model.get_submodule(name)``; "" is the model itself.
        what: What is wrong with them.
        advice: What to do about it.
    """

    where: tuple[str, ...]
    what: str
    advice: str

    def __repr__(self) -> str:
        names = [name or "the model itself" for name in self.where[:_SHOWN]]
        more = f" and {len(self.where) - _SHOWN} more" if len(self.where) > _SHOWN else ""
        return f"{', '.join(names)}{more}: {self.what}; {self.advice}"


def check_model(model: nn.Module) -> list[Hazard]:
    """Lists what is likely to be wrong with the batch norms of a model, without changing anything.

    Found are batch norms without branches beside multi-branch ones, or made of them by a conversion of torch's; layers
    that disagree on their branches, their route or their synchronisation; branches that were never trained while others
    were; running statistics that are not finite, zero, too coarse, never updated, or kept by one process alone; and
    layers in training mode inside a model in evaluation mode.

    Reading the values waits for a GPU: call it after conversion and before evaluation rather than in a loop. On the
    meta device there are none to judge.

    Args:
        model: Any module.

    Returns:
        One record for each kind of hazard; an empty list if all is well.

    Raises:
        TypeError: If ``model`` is not a module.

    Example:
        >>> assert not check_model(model), check_model(model)
    """
    check_module("model", model)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, _MultiBatchNorm)}
    others = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and name not in layers and "aux_bn" not in name.split(".")
    }
    grouped: dict[_Finding, list[str]] = {}
    for name, *finding in _findings(model, layers, others):
        grouped.setdefault((finding[0], finding[1]), []).append(name)
    return [Hazard(tuple(names), what, advice) for (what, advice), names in grouped.items()]


def _findings(
    model: nn.Module, layers: dict[str, _MultiBatchNorm], others: dict[str, _BatchNorm]
) -> Iterator[tuple[str, str, str]]:
    """All findings with the name of their module."""
    for name, norm in others.items():
        for finding in _of_other_norm(norm, beside=bool(layers)):
            yield name, *finding
    for finding in _of_disagreement(list(layers.values())):
        for name in layers:
            yield name, *finding
    for name, layer in layers.items():
        for finding in (*_of_statistics(layer), *_of_options(layer)):
            yield name, *finding
    for name, norm in {**layers, **others}.items():
        if norm.training and not model.training:
            yield name, "in training mode, but the model is in evaluation mode", "call model.eval()"
    for name, module in model.named_modules():
        for finding in _of_wrapper(module, list(layers.values())):
            yield name, *finding


def _of_other_norm(norm: _BatchNorm, *, beside: bool) -> Iterator[_Finding]:
    kind = type(norm).__name__
    if type(norm).__module__.startswith("torch.nn.") and "aux_bn" in norm._modules:
        yield (
            f"{kind} that holds branches and never uses them: what a conversion left of a multi-branch layer",
            "build the model again, and call convert_sync(model) instead of convert_sync_batchnorm(model)",
        )
    elif beside:
        yield (
            f"{kind} beside multi-branch layers takes no route: all branches share its statistics",
            "convert it too by convert_multi_bn(model, branches), unless all branches are to share it"
            if not isinstance(norm, nn.SyncBatchNorm)
            else "leave out convert_sync_batchnorm, and call convert_multi_bn and convert_sync",
        )


def _of_wrapper(module: nn.Module, layers: list[_MultiBatchNorm]) -> Iterator[_Finding]:
    if layers and isinstance(module, nn.DataParallel):
        yield (
            "DataParallel gives each card a part of the batch, which a mixed route does not fit, and keeps the running "
            "statistics of the first part alone",
            "use DistributedDataParallel and convert_sync(model)",
        )
    alone = any(layer.track_running_stats and not layer.sync for layer in layers)
    if alone and isinstance(module, DistributedDataParallel) and module.broadcast_buffers:
        yield (
            "DistributedDataParallel replaces all running statistics by those of the first process",
            "call convert_sync(model), so that they are those of all samples",
        )


def _of_disagreement(layers: list[_MultiBatchNorm]) -> Iterator[_Finding]:
    names = sorted({layer.branches for layer in layers})
    if len(names) > 1:
        yield f"layers with different branches, {' and '.join(map(str, names))}", "give all the same, in the same order"
    known = [layer.route for layer in layers if layer.route is None or not layer.route.is_meta]
    routes = {None if route is None else tuple(route.reshape(-1).tolist()) for route in known}
    if len(routes) > 1:
        yield "layers under different routes", "route the whole model by one use_branch or use_branches context"
    if len({(layer.sync, layer.process_group) for layer in layers}) > 1:
        yield "some layers synchronise their statistics and some do not, or with others", "call convert_sync(model)"


def _of_statistics(layer: _MultiBatchNorm) -> Iterator[_Finding]:
    if any(value.is_meta for value in (*layer.parameters(), *layer.buffers())):
        return
    branches = dict(zip(layer.branches, (layer, *layer.aux_bn), strict=True))
    counts = {name: int(b.num_batches_tracked) for name, b in branches.items() if b.num_batches_tracked is not None}
    for name, branch in branches.items():
        if counts.get(name) == 0 and any(counts.values()):
            yield (
                f"branch {name!r} was never trained while others were: its running statistics are the initial ones",
                f"train it under use_branch(model, {name!r}) or use_branches, or do not use it in evaluation",
            )
        values = [*branch.parameters(recurse=False), *(b for b in branch.buffers(recurse=False) if b.dim())]
        if not all(bool(value.isfinite().all()) for value in values):
            yield (
                f"parameters or running statistics of branch {name!r} are not finite",
                "look for the batch with infinite values; reset_running_stats() resets all branches",
            )
        elif branch.running_var is not None and bool((branch.running_var <= 0).any()):
            yield (
                f"channels of branch {name!r} have a running variance of 0: evaluation magnifies them by 1/sqrt(eps)",
                "look for inputs that are constant in training",
            )


def _of_options(layer: _MultiBatchNorm) -> Iterator[_Finding]:
    if not layer.track_running_stats or layer.running_mean is None:
        yield (
            "no running statistics are kept: in evaluation the result of a sample depends on the rest of its batch",
            "build the layer with track_running_stats=True",
        )
        return
    if layer.momentum == 0:
        yield "momentum 0 never updates the running statistics", "set a momentum, or freeze the layer by eval()"
    if layer.training and layer.running_mean.itemsize < torch.float32.itemsize:
        yield (
            f"running statistics in {str(layer.running_mean.dtype).removeprefix('torch.')} lose small updates",
            "train with autocast instead of half(), or call float() on the layers",
        )
