"""Checks of the arguments that the metrics share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def check_embeddings(name: str, embeddings: Tensor) -> None:
    """Raises unless ``embeddings`` is a finite floating-point tensor ``[N, D]`` that is not empty."""
    if not embeddings.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point tensor, got {embeddings.dtype}")
    if embeddings.ndim != 2 or embeddings.numel() == 0:
        raise ValueError(f"{name}: expected shape [N, D] with N and D of at least 1, got {list(embeddings.shape)}")
    # The extremes tell of NaN and infinity without a mask of the size of the embeddings.
    low, high = torch.aminmax(embeddings.detach())
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")


def check_labels(name: str, labels: Tensor, count: int) -> None:
    """Raises unless ``labels`` is an integer tensor ``[count]``."""
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"{name}: expected an integer tensor, got {labels.dtype}")
    if labels.shape != (count,):
        raise ValueError(f"{name}: expected shape [{count}], got {list(labels.shape)}")


def check_at_least_one(name: str, value: int) -> None:
    """Raises unless ``value`` is an int of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
