"""Checks of arguments that several functions on models share."""

from __future__ import annotations

from torch import nn


def module(name: str, value: object) -> None:
    """Raises TypeError unless ``value`` is a module."""
    if not isinstance(value, nn.Module):
        raise TypeError(f"{name}: expected a torch.nn.Module, got {type(value).__name__}")
