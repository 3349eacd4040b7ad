"""Tensors and nested tuples, lists, dicts and dataclasses of them: all changed, or some samples taken out."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """Applies ``function`` to a tensor, and to those in nested tuples, lists, dicts and dataclasses; others stay."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        copied = copy.copy(value)  # of its own type: model outputs are often dicts with attributes
        for key, entry in value.items():
            copied[key] = map_tensors(function, entry)
        return copied
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(function, entry) for entry in value))
    if type(value) in (tuple, list):
        return type(value)(map_tensors(function, entry) for entry in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = copy.copy(value)
        for field in dataclasses.fields(value):
            # Past the lock of frozen ones; replace() would run checks of the constructor.
            object.__setattr__(changed, field.name, map_tensors(function, getattr(value, field.name)))
        return changed
    return value


def take(values: Tensor, rows: Tensor) -> Tensor:
    """Copies ``rows`` (int64 ``[M]``) of ``values [N, *]``, in its memory format and without gradient."""
    return values.detach()[rows]  # index_select would make any result contiguous


def take_samples(value: Any, rows: Tensor, count: int) -> Any:
    """Takes ``rows`` of every tensor in ``value`` that has one row for each of ``count`` samples; others stay."""
    return map_tensors(
        lambda tensor: take(tensor, rows) if tensor.dim() > 0 and len(tensor) == count else tensor, value
    )


def broadcasts(value: Tensor, like: Tensor) -> bool:
    """Whether ``value`` broadcasts to the shape of ``like``."""
    sizes = zip(reversed(value.shape), reversed(like.shape), strict=False)
    return value.dim() <= like.dim() and all(size in (1, whole) for size, whole in sizes)
