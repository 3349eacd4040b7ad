"""Checkpoints of plain and of other multi-branch batch norms: renamed to our layout, and from it to theirs."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mdprop_ext._arguments import check_module
from mdprop_ext.nn.multi_batch_norm import _PARAMETERS, _STATISTICS, _MultiBatchNorm
from mdprop_ext.nn.routing import branch_index, layers_to_route

_ENTRIES = _PARAMETERS + _STATISTICS


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Where a library keeps the entries of its branches, and how many branches it knows."""

    first: str
    others: str
    fewest: int
    most: float

    def prefix(self, branch: int) -> str:
        """What stands before ``weight`` in the name of an entry of a branch."""
        return self.first if branch == 0 else self.others.format(branch=branch, before=branch - 1)

    def holds(self, branch: int) -> bool:
        """Whether there is a place for this branch."""
        return branch < self.most


_OURS = _Layout(first="", others="aux_bn.{before}.", fewest=2, most=math.inf)
_LAYOUTS: Mapping[str, _Layout] = {
    "plain": _Layout(first="", others="", fewest=1, most=1),
    "timm": _OURS,
    "advprop": _Layout(first="", others="aux_bn.", fewest=2, most=2),
    "mdprop": _Layout(first="", others="aux_bn{branch}.", fewest=2, most=math.inf),
    "augmax": _Layout(first="bn.0.", others="bn.{branch}.", fewest=2, most=2),
}


def adapt_state_dict(model: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the batch norm entries of a checkpoint to those of a model's multi-branch layers.

    Understood are plain batch norm (``weight``), timm's SplitBatchNorm2d and our own layers (``aux_bn.0.weight``),
    AdvProp (``aux_bn.weight``), MDProp (``aux_bn1.weight``) and AugMax (``bn.0.weight``, ``bn.1.weight``). A branch
    that the checkpoint lacks gets the values of branch 0. All other entries stay as they are. The way back is
    :func:`export_state_dict`.

    Args:
        model: A module with multi-branch layers.
        state_dict: A checkpoint, which is not changed.

    Returns:
        A new state dict for ``model.load_state_dict``.

    Raises:
        TypeError: If the model is not a module, or the checkpoint no state dict but a path, for instance.
        ValueError: If the checkpoint has more branches than a layer, or scales and shifts that differ between branches
            for a layer that shares them (``share_affine``).

    Example:
        >>> model.load_state_dict(adapt_state_dict(model, torch.load("resnet50.pth", weights_only=True)))
    """
    check_module("model", model)
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict: expected a state dict such as torch.load gives, got {type(state_dict).__name__}")
    adapted = _copy(state_dict)
    for prefix, layer in _named_layers(model):
        for branch in range(len(layer.branches) + 1):
            for key, name in _entries_of(branch, prefix, state_dict):
                if branch == len(layer.branches):
                    raise ValueError(
                        f"state_dict: expected entries of the {branch} branches of {prefix[:-1] or 'the layer'}, "
                        f"got {key!r} of branch {branch}"
                    )
                adapted.pop(key, None)
                adapted[f"{prefix}{_OURS.prefix(branch)}{name}"] = state_dict[key]
        _fill_missing_branches(layer, prefix, adapted)
        if layer.share_affine:
            _join_affine(layer, prefix, adapted)
    return adapted


def export_state_dict(
    model: nn.Module, *, layout: str, branches: Sequence[str | int] | None = None
) -> dict[str, Tensor]:
    """Writes the batch norm entries of a model under the names that another library gives them.

    ============  ==============================================  ========
    layout        names of the branches' scales                   branches
    ============  ==============================================  ========
    ``plain``     ``weight``                                      1
    ``timm``      ``weight``, ``aux_bn.0.weight``, ...            2 or more
    ``advprop``   ``weight``, ``aux_bn.weight``                   2
    ``mdprop``    ``weight``, ``aux_bn1.weight``, ...             2 or more
    ``augmax``    ``bn.0.weight``, ``bn.1.weight``                2
    ============  ==============================================  ========

    All other entries stay as they are, and :func:`adapt_state_dict` reads each layout back. Scales and shifts that the
    branches of a layer share are written once for each branch, as copies.

    Args:
        model: A module with multi-branch layers.
        layout: Whose names to use.
        branches: Names or indices of the branches to write, in the order of the layout; all of the model's by default.

    Returns:
        A new state dict, whose tensors are those of the model as in ``model.state_dict()``.

    Raises:
        TypeError: If a branch is neither a name nor an index.
        ValueError: If the layout is unknown, holds another number of branches, or a branch is unknown or repeated, or
            the model has no multi-branch layer.

    Example:
        >>> torch.save(export_state_dict(model, layout="advprop", branches=("main", "st")), "advprop.pth")
    """
    names = layers_to_route(model)[0].branches
    chosen = _chosen_branches(names, layout, branches)
    state = model.state_dict()
    exported = _copy(state)
    for prefix, layer in _named_layers(model):
        own = [_OURS.prefix(branch) for branch in range(len(names))]
        for key in [f"{prefix}{place}{name}" for place in own for name in _ENTRIES]:
            exported.pop(key, None)
        for position, branch in enumerate(chosen):
            place = prefix + _LAYOUTS[layout].prefix(position)
            for name in _ENTRIES:
                shared = layer.share_affine and branch > 0 and name in _PARAMETERS
                value = state.get(f"{prefix}{own[0 if shared else branch]}{name}")
                if value is not None:
                    # Formats such as safetensors refuse two names of one tensor.
                    exported[place + name] = value.clone() if shared else value
    return exported


def _copy(state_dict: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """A copy with the versions of the entries, by which modules upgrade those of older ones when they load them."""
    copied = OrderedDict(state_dict)
    if hasattr(state_dict, "_metadata"):
        vars(copied)["_metadata"] = state_dict._metadata
    return copied


def _named_layers(model: nn.Module) -> Iterator[tuple[str, _MultiBatchNorm]]:
    """Every multi-branch layer under each of its names, ended by a dot."""
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, _MultiBatchNorm):
            yield f"{name}." if name else "", module


def _entries_of(branch: int, prefix: str, state_dict: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """The keys of a branch's entries in any of the layouts, with the names of the entries."""
    places = dict.fromkeys(layout.prefix(branch) for layout in _LAYOUTS.values() if layout.holds(branch))
    for place in places:
        for name in _ENTRIES:
            key = f"{prefix}{place}{name}"
            if key in state_dict:
                yield key, name


def _fill_missing_branches(layer: _MultiBatchNorm, prefix: str, adapted: dict[str, Tensor]) -> None:
    wanted = layer.state_dict().keys()
    for branch in range(1, len(layer.branches)):
        for name in _ENTRIES:
            key = _OURS.prefix(branch) + name
            if key in wanted and prefix + name in adapted:
                adapted.setdefault(prefix + key, adapted[prefix + name])


def _join_affine(layer: _MultiBatchNorm, prefix: str, adapted: dict[str, Tensor]) -> None:
    """Drops the scales and shifts of branches 1, 2, ... where they are those of branch 0."""
    for branch in range(1, len(layer.branches)):
        for name in _PARAMETERS:
            key = f"{prefix}{_OURS.prefix(branch)}{name}"
            value = adapted.pop(key, None)
            if value is not None and not torch.equal(value, adapted[prefix + name]):
                raise ValueError(
                    f"state_dict: expected one {name} for all branches of {prefix[:-1] or 'the layer'}, which has "
                    f"share_affine, got another one in branch {branch}"
                )


def _chosen_branches(names: tuple[str, ...], layout: str, branches: Sequence[str | int] | None) -> list[int]:
    """The indices of the branches to write, after checking that the layout holds so many."""
    if layout not in _LAYOUTS:
        raise ValueError(f"layout: expected one of {', '.join(map(repr, _LAYOUTS))}, got {layout!r}")
    if isinstance(branches, str):
        raise TypeError(f"branches: expected a sequence of names or indices such as ('main', 'adv'), got {branches!r}")
    chosen = [branch_index(names, branch) for branch in (range(len(names)) if branches is None else branches)]
    if len(set(chosen)) != len(chosen):
        raise ValueError(f"branches: expected each branch once, got {branches!r}")
    fewest, most = _LAYOUTS[layout].fewest, _LAYOUTS[layout].most
    if not fewest <= len(chosen) <= most:
        held = f"{fewest}" if fewest == most else f"at least {fewest}"
        raise ValueError(
            f"branches: expected {held} for the layout {layout!r}, got {[names[index] for index in chosen]}; "
            f"name those to write with branches=(...)"
        )
    return chosen
