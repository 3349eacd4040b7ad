"""Checks of tensors, modules, numbers and names, shared by all parts of the package."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn


def check_tensor(name: str, value: object) -> None:
    """Raises unless ``value`` is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")


def check_module(name: str, value: object) -> None:
    """Raises unless ``value`` is a module."""
    if not isinstance(value, nn.Module):
        raise TypeError(f"{name}: expected a torch.nn.Module, got {type(value).__name__}")


def check_bool(name: str, value: object) -> None:
    """Raises unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {type(value).__name__}")


def check_integer(name: str, value: int, *, least: int) -> None:
    """Raises unless ``value`` is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")


def check_number(name: str, value: float, *, least: float = -math.inf, most: float = math.inf) -> None:
    """Raises unless ``value`` is a finite number from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if not (least <= value <= most and math.isfinite(value)):
        limits = f"a finite number >= {least:g}" if most == math.inf else f"a number from {least:g} to {most:g}"
        raise ValueError(f"{name}: expected {limits}, got {value}")


def check_seed(value: int) -> None:
    """Raises unless ``value`` is a seed that every generator takes: an integer from 0 to 2^63 - 1."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"seed: expected an integer from 0 to 2^63 - 1, got {value!r}")


def check_radius(eps: float) -> None:
    """Raises unless ``eps`` is a radius in pixel units of [0, 1]."""
    try:
        check_number("eps", eps, least=0, most=1)
    except ValueError as error:
        is_level = 1 < eps <= 255
        raise ValueError(f"{error}: write {eps:g}/255 for {eps:g} levels" if is_level else str(error)) from None


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
