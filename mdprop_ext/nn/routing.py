"""Which branch each sample takes: contexts that route a whole model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mdprop_ext._arguments import check_module
from mdprop_ext.nn.multi_batch_norm import _MultiBatchNorm


def multi_layers(model: nn.Module) -> list[_MultiBatchNorm]:
    """All multi-branch layers of a model, after checking that they agree on the names of the branches."""
    check_module("model", model)
    layers = [module for module in model.modules() if isinstance(module, _MultiBatchNorm)]
    names = {layer.branches for layer in layers}
    if len(names) > 1:
        raise ValueError(f"all multi-branch layers of a model must have the same branches, got {sorted(names)}")
    return layers


def layers_to_route(model: nn.Module) -> list[_MultiBatchNorm]:
    """All multi-branch layers of a model, of which there must be one at least."""
    layers = multi_layers(model)
    if not layers:
        raise ValueError(f"{type(model).__name__} has no multi-branch batch norm: call convert_multi_bn(model) first")
    return layers


def branch_names(model: nn.Module) -> tuple[str, ...]:
    """The names of a model's branches, branch 0 first; empty for a model without multi-branch layers.

    Args:
        model: Any module.

    Returns:
        The names, the same for all layers.

    Raises:
        TypeError: If the model is not a module.
        ValueError: If the layers of the model do not agree.
    """
    layers = multi_layers(model)
    return layers[0].branches if layers else ()


def branch_index(names: tuple[str, ...], branch: str | int) -> int:
    """The position of a branch, given by name or by position."""
    if isinstance(branch, str):
        if branch not in names:
            raise ValueError(f"branch {branch!r} is unknown, the branches are {names}")
        return names.index(branch)
    if isinstance(branch, bool) or not isinstance(branch, int):
        raise TypeError(f"branch must be a name or an index, got {type(branch).__name__}")
    if not 0 <= branch < len(names):
        raise ValueError(f"branch must be in 0..{len(names) - 1}, got {branch}")
    return branch


@contextmanager
def use_branch(model: nn.Module, branch: str | int) -> Iterator[None]:
    """Sends whole batches through one branch of every multi-branch layer.

    Contexts nest, and the route of before returns on exit. Blocks under ``torch.utils.checkpoint`` are recomputed in
    the backward pass: call ``backward`` inside the context too, since a recomputation under another route raises.
    Only with ``use_reentrant=False``: the reentrant kind keeps no route of its forward pass to compare with. With
    either kind running statistics are updated once, by the forward pass.

    Args:
        model: A module with multi-branch layers.
        branch: Name or index of the branch.

    Raises:
        TypeError: If the model is not a module, or the branch neither a name nor an index.
        ValueError: If the model has no multi-branch layer, its layers disagree, or the branch is unknown.

    Example:
        >>> with use_branch(model, "adv"):
        ...     embeddings = model(images)
    """
    layers = layers_to_route(model)
    # A value in a tensor, where a Python number would make torch.compile specialise on it. 0-d: no batch size implied.
    index = branch_index(layers[0].branches, branch)
    with torch.inference_mode(False):
        route = torch.tensor(index)
    with _routed(layers, route):
        yield


@contextmanager
def use_branches(model: nn.Module, branches: Mapping[str, int] | Tensor) -> Iterator[None]:
    """Sends the samples of one mixed batch through branches of their own; see :func:`use_branch`.

    Args:
        model: A module with multi-branch layers.
        branches: How many consecutive samples go through which branch, in the order of the batch, such as
            ``{"main": 64, "adv": 32}``; or the branch of every sample as an int64 tensor ``[N]``.

    Raises:
        TypeError: If the model is not a module, or the branches are neither a mapping of names to whole numbers nor an
            int64 tensor.
        ValueError: If the model has no multi-branch layer, its layers disagree, a branch is unknown, a size negative,
            an id out of range, or, in the forward pass, if their number differs from the batch size.

    Example:
        >>> with use_branches(model, {"main": 64, "st": 32, "mt": 32}):
        ...     embeddings = model(torch.cat([images, single_targeted, multi_targeted]))
    """
    layers = layers_to_route(model)
    # Outside inference mode, since a forward pass inside of the context may record gradients.
    with torch.inference_mode(False):
        if isinstance(branches, Tensor):
            _check_ids(branches, len(layers[0].branches))
            ids = branches.clone()
        else:
            ids = _ids_of_sizes(layers[0].branches, branches)
    with _routed(layers, ids):
        yield


def _ids_of_sizes(names: tuple[str, ...], sizes: Mapping[str, int]) -> Tensor:
    if not isinstance(sizes, Mapping):
        raise TypeError(f"branches must be a mapping of sizes or an int64 tensor of ids, got {type(sizes).__name__}")
    indices = [branch_index(names, name) for name in sizes]
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"the size of branch {name!r} must be a whole number, got {type(size).__name__}")
        if size < 0:
            raise ValueError(f"the size of branch {name!r} must not be negative, got {size}")
    counts = torch.tensor(list(sizes.values()), dtype=torch.int64)
    # With its length given no value has to be read: in a trace there are none, and a GPU would be waited for.
    return torch.tensor(indices, dtype=torch.int64).repeat_interleave(counts, output_size=sum(sizes.values()))


def _check_ids(ids: Tensor, num_branches: int) -> None:
    if ids.dtype != torch.int64:
        raise TypeError(f"branch ids must be an int64 tensor, got {ids.dtype}")
    if ids.dim() != 1:
        raise ValueError(f"branch ids must have shape [N], got {list(ids.shape)}")
    # Ids on another device would cost a synchronisation here; the op checks them there. A trace has no values.
    if ids.device.type == "cpu" and not torch.compiler.is_compiling() and ids.numel() > 0:
        smallest, largest = (int(value) for value in ids.aminmax())
        if smallest < 0 or largest >= num_branches:
            raise ValueError(f"branch ids must be in 0..{num_branches - 1}, got values in {smallest}..{largest}")


@contextmanager
def _routed(layers: list[_MultiBatchNorm], route: Tensor) -> Iterator[None]:
    """Puts one tensor on all layers, copied once to each device that they use."""
    previous = [layer.route for layer in layers]
    copies: dict[torch.device, Tensor] = {}
    devices = [_device_of(layer) for layer in layers]
    # A layer without parameters and statistics computes where the others do.
    default = next((device for device in devices if device is not None), route.device)
    try:
        for layer, own in zip(layers, devices, strict=True):
            device = default if own is None else own
            if device not in copies:
                with torch.inference_mode(False):
                    copies[device] = route.to(device)
            layer.route = copies[device]
        yield
    finally:
        for layer, before in zip(layers, previous, strict=True):
            if isinstance(layer, _MultiBatchNorm):  # not stripped in the meantime
                layer.route = before


def _device_of(layer: _MultiBatchNorm) -> torch.device | None:
    """Where a layer computes; None for one without parameters and statistics."""
    for tensor in (layer.weight, layer.running_mean):
        if tensor is not None:
            return tensor.device
    return None
