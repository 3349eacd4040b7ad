"""Checkpoints of plain and of other multi-branch batch norms, renamed to our layout."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from mdprop_ext.nn.multi_batch_norm import _PARAMETERS, _STATISTICS, _MultiBatchNorm

# Where other layouts keep the entries of a branch, and how the number in the name counts.
_LAYOUTS = (
    (re.compile(r"aux_bn\.(\d+)\.(\w+)"), 1),  # timm's SplitBatchNorm2d, and ours
    (re.compile(r"aux_bn(\d+)\.(\w+)"), 0),  # MDProp, which counts from 1
    (re.compile(r"bn\.(\d+)\.(\w+)"), 0),  # AugMax, where branch 0 is in the list too
)
_SINGLE = re.compile(r"(aux_bn\.)?(\w+)")  # plain batch norm, and AdvProp's one auxiliary branch


def adapt_state_dict(model: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the batch norm entries of a checkpoint to those of a model's multi-branch layers.

    Understood are plain batch norm (``weight``), timm's SplitBatchNorm2d and our own layers (``aux_bn.0.weight``),
    AdvProp (``aux_bn.weight``), MDProp (``aux_bn1.weight``) and AugMax (``bn.0.weight``, ``bn.1.weight``). A branch
    that the checkpoint lacks gets the values of branch 0. All other entries stay as they are.

    Args:
        model: A module with multi-branch layers.
        state_dict: A checkpoint, which is not changed.

    Returns:
        A new state dict for ``model.load_state_dict``.

    Raises:
        ValueError: If the checkpoint has more branches than a layer.

    Example:
        >>> model.load_state_dict(adapt_state_dict(model, torch.load("resnet50.pth", weights_only=True)))
    """
    adapted = dict(state_dict)
    for layer_name, layer in model.named_modules(remove_duplicate=False):
        if not isinstance(layer, _MultiBatchNorm):
            continue
        prefix = f"{layer_name}." if layer_name else ""
        for key in state_dict:
            entry = _branch_and_name(key[len(prefix) :]) if key.startswith(prefix) else None
            if entry is None:
                continue
            branch, name = entry
            if branch >= len(layer.branches):
                raise ValueError(
                    f"the checkpoint has an entry {key!r} of branch {branch}, but {layer_name or 'the layer'} has "
                    f"{len(layer.branches)} branches"
                )
            adapted.pop(key, None)
            adapted[prefix + _our_key(branch, name)] = state_dict[key]
        _fill_missing_branches(layer, prefix, adapted)
    return adapted


def _branch_and_name(key: str) -> tuple[int, str] | None:
    """The branch and the name of an entry of a batch norm in any of the layouts."""
    for layout, offset in _LAYOUTS:
        match = layout.fullmatch(key)
        if match is not None and match[2] in _PARAMETERS + _STATISTICS:
            return int(match[1]) + offset, match[2]
    match = _SINGLE.fullmatch(key)
    if match is None or match[2] not in _PARAMETERS + _STATISTICS:
        return None
    return int(match[1] is not None), match[2]


def _our_key(branch: int, name: str) -> str:
    return name if branch == 0 else f"aux_bn.{branch - 1}.{name}"


def _fill_missing_branches(layer: _MultiBatchNorm, prefix: str, adapted: dict[str, Tensor]) -> None:
    wanted = layer.state_dict().keys()
    for branch in range(1, len(layer.branches)):
        for name in _PARAMETERS + _STATISTICS:
            key = _our_key(branch, name)
            if key in wanted and prefix + name in adapted:
                adapted.setdefault(prefix + key, adapted[prefix + name])
