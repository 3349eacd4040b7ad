"""Checks of the arguments that the metrics share."""

from __future__ import annotations

import torch
from torch import Tensor


def check_embeddings(name: str, embeddings: Tensor) -> None:
    """Raises unless ``embeddings`` is a finite floating-point tensor ``[N, D]`` that is not empty."""
    if not embeddings.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point tensor, got {embeddings.dtype}")
    if embeddings.ndim != 2 or embeddings.numel() == 0:
        raise ValueError(f"{name}: expected shape [N, D] with N and D of at least 1, got {list(embeddings.shape)}")
    if not bool(torch.isfinite(embeddings).all()):
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")


def check_labels(name: str, labels: Tensor, count: int) -> None:
    """Raises unless ``labels`` is an integer tensor ``[count]``."""
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"{name}: expected an integer tensor, got {labels.dtype}")
    if labels.shape != (count,):
        raise ValueError(f"{name}: expected shape [{count}], got {list(labels.shape)}")
