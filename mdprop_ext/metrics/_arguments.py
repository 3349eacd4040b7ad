"""Checks of the arguments that the metrics share."""

from __future__ import annotations

import torch
from torch import Tensor

from mdprop_ext._arguments import check_tensor


def check_embeddings(name: str, embeddings: Tensor) -> None:
    """Raises unless ``embeddings`` is a finite floating-point tensor ``[N, D]`` that is not empty."""
    check_tensor(name, embeddings)
    if not embeddings.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point tensor, got {embeddings.dtype}")
    if embeddings.ndim != 2 or embeddings.numel() == 0:
        raise ValueError(f"{name}: expected shape [N, D] with N and D of at least 1, got {list(embeddings.shape)}")
    # The extremes tell of NaN and infinity without a mask of the size of the embeddings.
    low, high = torch.aminmax(embeddings.detach())
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")


def check_pair(query: Tensor, reference: Tensor) -> None:
    """Raises unless both are embeddings, finite and not empty, of one width, dtype and device."""
    check_embeddings("query", query)
    check_embeddings("reference", reference)
    if reference.shape[1] != query.shape[1]:
        raise ValueError(f"reference: expected shape [N, {query.shape[1]}], got {list(reference.shape)}")
    if reference.dtype != query.dtype:
        raise TypeError(f"reference: expected the dtype of query, {query.dtype}, got {reference.dtype}")
    check_device("reference", reference, "query", query)


def check_labels(name: str, labels: Tensor, count: int) -> None:
    """Raises unless ``labels`` is an integer tensor ``[count]``."""
    check_tensor(name, labels)
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"{name}: expected an integer tensor, got {labels.dtype}")
    if labels.shape != (count,):
        raise ValueError(f"{name}: expected shape [{count}], got {list(labels.shape)}")


def check_device(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Raises unless ``value`` is on the device of ``other``."""
    if value.device != other.device:
        raise ValueError(f"{name}: expected the device of {other_name}, {other.device}, got {value.device}")
