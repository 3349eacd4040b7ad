"""Arguments that describe a ball around each sample and a box: their checks, and their form in the raw ops.

A number that may also be a tensor is two arguments of a raw op, of which the tensor counts if there is one.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mdprop_ext.ops import _check

NORMS = ("linf", "l2", "l1")

RADIUS_SCHEMA = "float radius, Tensor? radii"
BOX_SCHEMA = "float lower, Tensor? lower_bound, float upper, Tensor? upper_bound"


def number_or_rows(value: float | Tensor, x: Tensor) -> tuple[float, Tensor | None]:
    """The two raw arguments for a number, which a tensor may hold so that no device is asked, or ``[N]``."""
    return (0.0, value.expand(x.shape[0])) if isinstance(value, Tensor) else (float(value), None)


def bounds(
    lower: float | Tensor, upper: float | Tensor, x: Tensor
) -> tuple[float, Tensor | None, float, Tensor | None]:
    """The four raw arguments for the box: two numbers, or two tensors ``[N, *]`` or ``[1, *]`` of one shape."""
    if not isinstance(lower, Tensor) and not isinstance(upper, Tensor):
        return float(lower), None, float(upper), None
    dtype = _check.compute_dtype(x)
    low, high = (spread(_beside(bound, x, dtype), x) for bound in (lower, upper))
    shape = torch.broadcast_shapes(low.shape, high.shape)  # type: ignore[no-untyped-call]
    return 0.0, low.expand(shape), 0.0, high.expand(shape)


def _beside(bound: float | Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    # A number is filled in on the device: a copy from the host would wait for it.
    if isinstance(bound, Tensor):
        return bound.to(x.device, dtype)
    return torch.full((), bound, dtype=dtype, device=x.device)


def spread(value: Tensor, x: Tensor) -> Tensor:
    """Expands ``value``, which broadcasts to ``x [N, *]``, to ``[N, *]``, or to ``[1, *]`` if samples share it."""
    rows = value.shape[0] if value.dim() == x.dim() else 1
    return value.expand(rows, *x.shape[1:])


def check_ball_and_box(
    name: str, x: Tensor, norm: str, radius: float | Tensor, lower: float | Tensor, upper: float | Tensor
) -> None:
    """Raises TypeError or ValueError unless ``x``, called ``name``, and the options fit together."""
    _check.floating(name, x)
    if x.dim() == 0:
        raise ValueError(f"{name}: expected [N, *], got a tensor without dimensions")
    if norm not in NORMS:
        raise ValueError(f"norm: expected one of {NORMS}, got {norm!r}")
    check_rows("radius", radius, x)
    if not _may_hold(operator.ge, radius, 0):
        raise ValueError(f"radius: expected >= 0, got {radius}")
    for bound_name, bound in (("lower", lower), ("upper", upper)):
        if isinstance(bound, Tensor):
            check_broadcasts(bound_name, bound, name, x, "a number or a tensor")
        else:
            _check.number(bound_name, bound)
    if not _may_hold(operator.le, lower, upper):
        raise ValueError(f"lower: expected at most upper = {upper}, got {lower}")


def check_rows(name: str, value: float | Tensor, x: Tensor) -> None:
    """Raises TypeError or ValueError unless ``value`` is a number, a tensor of one, or ``[N]`` beside ``x``."""
    if not isinstance(value, Tensor):
        return _check.number(name, value)
    if tuple(value.shape) not in ((), (x.shape[0],)):
        raise ValueError(f"{name}: expected a number or [N] with N = {x.shape[0]}, got {list(value.shape)}")
    _check.same_device(name, value, "x", x)


def check_finite(name: str, value: float | Tensor) -> None:
    """Raises ValueError if one of the numbers is seen to be infinite or NaN, without asking a device."""
    if isinstance(value, Tensor):
        finite = not _check.readable(value) or all(map(math.isfinite, value.flatten().tolist()))
    else:
        finite = torch.compiler.is_compiling() or math.isfinite(value)
    if not finite:
        raise ValueError(f"{name}: expected finite values, got {value}")


def check_broadcasts(name: str, value: Tensor, other_name: str, other: Tensor, what: str = "a tensor") -> None:
    """Raises ValueError unless ``value`` broadcasts to ``other``."""
    tail = other.shape[other.dim() - value.dim() :] if value.dim() <= other.dim() else ()
    if len(tail) != value.dim() or any(a not in (1, b) for a, b in zip(value.shape, tail, strict=True)):
        raise ValueError(f"{name}: expected {what} that broadcasts to {other_name}, got {list(value.shape)}")


def _may_hold(relation: Callable[[Any, Any], Any], a: float | Tensor, b: float | Tensor) -> bool:
    """Whether a relation holds, as far as that can be told without asking a device."""
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        return bool(relation(a, b))
    tensors = [value for value in (a, b) if isinstance(value, Tensor)]
    if not all(map(_check.readable, tensors)):
        return True
    return bool(relation(a, b).all())
