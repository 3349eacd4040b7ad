"""Running statistics of each branch, estimated anew over batches of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mdprop_ext.nn.multi_batch_norm import _STATISTICS, _MultiBatchNorm
from mdprop_ext.nn.routing import branch_index, layers_to_route, use_branch


def update_branch_statistics(
    model: nn.Module, batches: Mapping[str | int, Iterable[Any]], *, device: torch.device | str | None = None
) -> None:
    """Estimates the running statistics of branches anew, each as the average over batches of its own.

    For a model with averaged weights (SWA, EMA), as ``torch.optim.swa_utils.update_bn`` for a plain one: that function
    would reset every branch, and estimate only those that its batches are routed through. Here branches that are not
    named keep their statistics bit for bit.

    While the next batch is fetched the model is as it was before, statistics included, so batches may be made by
    attacking it. During the forward passes the multi-branch layers are in training mode; other modules stay in theirs,
    so call ``model.train()`` before where dropout should act.

    Args:
        model: A module with multi-branch layers.
        batches: The batches of each branch, by its name or index: tensors, or tuples and lists whose first entry is
            what the model takes.
        device: Where to put the inputs; None for where they are.

    Raises:
        TypeError: If a branch is neither a name nor an index.
        ValueError: If the model has no multi-branch layer, its layers disagree, a branch is unknown, or there is no
            batch for it. The statistics of that branch then stay as they were.

    Example:
        >>> attacked = (attack(images, labels) for images, labels in loader)
        >>> update_branch_statistics(averaged, {"main": loader, "adv": attacked})

    Reference:
        Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018
        (https://arxiv.org/abs/1803.05407).
    """
    names = layers_to_route(model)[0].branches
    chosen = [(branch_index(names, branch), loader) for branch, loader in batches.items()]
    for index, loader in chosen:
        if not _estimate(model, index, loader, device):
            raise ValueError(f"batches: expected one batch at least for branch {names[index]!r}, got none")


@torch.no_grad()
def _write(buffers: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)


@contextmanager
def _averaging(layers: Sequence[_MultiBatchNorm]) -> Iterator[None]:
    """Lets the layers average over all batches, whatever their flags say."""
    flags = [(layer.training, layer.momentum) for layer in layers]
    try:
        for layer in layers:
            layer.training, layer.momentum = True, None
        yield
    finally:
        for layer, (training, momentum) in zip(layers, flags, strict=True):
            layer.training, layer.momentum = training, momentum


def _estimate(model: nn.Module, branch: int, loader: Iterable[Any], device: torch.device | str | None) -> bool:
    """Estimates the statistics of one branch; False, with nothing changed, where there is no batch."""
    layers = [layer for layer in layers_to_route(model) if layer.track_running_stats and layer.running_mean is not None]
    owners = [layer if branch == 0 else layer.aux_bn[branch - 1] for layer in layers]
    buffers = [getattr(owner, name) for owner in owners for name in _STATISTICS]
    before = [buffer.clone() for buffer in buffers]
    # The first batch of an average replaces what was there.
    estimate = [torch.zeros_like(buffer) for buffer in buffers]
    empty = True
    for batch in loader:
        empty = False
        inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
        _write(buffers, estimate)
        try:
            with torch.no_grad(), use_branch(model, branch), _averaging(layers):
                model(inputs if device is None else inputs.to(device))
            estimate = [buffer.clone() for buffer in buffers]
        finally:
            _write(buffers, before)
    if not empty:
        _write(buffers, estimate)
    return not empty
