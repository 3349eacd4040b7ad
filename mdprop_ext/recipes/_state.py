"""What changes in objects while they are used, as trees of tensors and plain values that can be written to a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

#: Nested dictionaries with names as keys, and lists, of tensors, numbers, strings and None.
StateTree = dict[str, Any]

_TENSOR = "$tensor"
_PLAIN = (bool, int, float, str)
_UNKNOWN = object()


def state_of(owner: object) -> StateTree:
    """Collects the state in an object's attributes.

    Known are random generators and whatever has one as ``generator``, as attacks do; modules, with the generators in
    their submodules; tensors; numbers and strings; and lists, tuples and dictionaries of them. Other attributes are
    left out.

    Args:
        owner: Any object with attributes.

    Returns:
        The state by the attributes' names. Tensors are those of the object, not copies.
    """
    states = {name: _collected(value) for name, value in vars(owner).items()}
    return {name: state for name, state in states.items() if state is not _UNKNOWN}


def restore_state(owner: object, state: Mapping[str, Any], device: torch.device | str = "cpu") -> None:
    """Puts a state that :func:`state_of` collected into an object that was built in the same way.

    Args:
        owner: The object.
        state: Its state.
        device: Of tensors that the object does not have yet.
    """
    for name, saved in state.items():
        setattr(owner, name, _restored(getattr(owner, name, None), saved, device))


def module_state(module: nn.Module) -> StateTree:
    """Returns parameters, buffers and the states of the generators that a module and its submodules hold."""
    return {
        "tensors": dict(module.state_dict()),
        "generators": {name: generator.get_state() for name, generator in _generators(module).items()},
    }


def restore_module(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Puts back what :func:`module_state` returned."""
    module.load_state_dict(state["tensors"])
    for name, generator in _generators(module).items():
        generator.set_state(state["generators"][name])


def optimizer_state(optimizer: torch.optim.Optimizer) -> StateTree:
    """Returns what an optimizer remembers of each parameter; its options are for the caller to set again."""
    return {str(index): dict(entry) for index, entry in optimizer.state_dict()["state"].items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Mapping[str, Any]]) -> None:
    """Puts back what :func:`optimizer_state` returned."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    entries = {
        int(index): {name: _laid_out_like(parameters[int(index)], value) for name, value in entry.items()}
        for index, entry in state.items()
    }
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})


def split_tree(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Takes the tensors out of a tree.

    Args:
        tree: A :data:`StateTree`.

    Returns:
        The tree with placeholders, fit for JSON, and the tensors by their place.

    Raises:
        TypeError: If a key is not a string, or a value neither a tensor nor one that JSON has.
    """
    tensors: dict[str, Tensor] = {}

    def visit(node: Any, place: str) -> Any:
        if isinstance(node, Tensor):
            tensors[place] = node.detach()
            return {_TENSOR: place}
        if isinstance(node, Mapping) and all(isinstance(key, str) for key in node):
            return {key: visit(child, f"{place}/{key}") for key, child in node.items()}
        if isinstance(node, list | tuple):
            return [visit(child, f"{place}/{index}") for index, child in enumerate(node)]
        if node is None or isinstance(node, _PLAIN):
            return node
        raise TypeError(f"state: expected tensors and plain values, got {type(node).__name__} at {place!r}")

    return visit(tree, ""), tensors


def joined_tree(skeleton: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Puts tensors back into the tree that :func:`split_tree` took them from."""
    if isinstance(skeleton, dict):
        if _TENSOR in skeleton:
            return tensors[skeleton[_TENSOR]]
        return {key: joined_tree(child, tensors) for key, child in skeleton.items()}
    if isinstance(skeleton, list):
        return [joined_tree(child, tensors) for child in skeleton]
    return skeleton


def tree_on_cpu(tree: Any) -> Any:
    """Copies the tensors of a tree to the CPU."""
    skeleton, tensors = split_tree(tree)
    return joined_tree(skeleton, {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()})


def _collected(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, nn.Module):
        return module_state(value)
    if isinstance(getattr(value, "generator", None), torch.Generator):
        return value.generator.get_state()
    if value is None or isinstance(value, Tensor | bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        entries = {str(key): _collected(child) for key, child in value.items()}
        return {key: state for key, state in entries.items() if state is not _UNKNOWN}
    if isinstance(value, list | tuple):
        states = [_collected(child) for child in value]
        return _UNKNOWN if any(state is _UNKNOWN for state in states) else states
    return _UNKNOWN


def _restored(value: Any, saved: Any, device: torch.device | str) -> Any:
    """Brings ``value`` into a saved state, in place where it can be, and returns what takes its place."""
    if isinstance(value, torch.Generator):
        value.set_state(saved)
    elif isinstance(value, nn.Module):
        restore_module(value, saved)
    elif isinstance(getattr(value, "generator", None), torch.Generator):
        value.generator.set_state(saved)
    elif isinstance(value, Tensor) and isinstance(saved, Tensor) and value.shape == saved.shape:
        value.detach().copy_(saved)
    elif isinstance(value, dict):
        by_text = {str(key): key for key in value}
        for text, entry in saved.items():
            key = by_text.get(text, text)
            value[key] = _restored(value.get(key), entry, device)
    elif isinstance(value, list | tuple) and isinstance(saved, list) and len(value) == len(saved):
        return type(value)(_restored(old, new, device) for old, new in zip(value, saved, strict=True))
    elif isinstance(saved, Tensor):
        return saved.to(device)
    else:
        return tuple(saved) if isinstance(value, tuple) else saved
    return value


def _generators(module: nn.Module) -> dict[str, torch.Generator]:
    return {
        f"{path}.{name}": value
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if isinstance(value, torch.Generator)
    }


def _laid_out_like(parameter: Tensor, value: Any) -> Any:
    """Gives a parameter's average the parameter's memory format, so that kernels treat both as in the first run."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
