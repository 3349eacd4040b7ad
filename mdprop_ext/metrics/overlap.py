"""Items that are in two sets, such as queries that are in the database."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from mdprop_ext._arguments import check_tensor

# Bytes that are brought to the host at a time.
_MAX_BYTES_HELD = 1 << 24


def overlap(query: Tensor, reference: Tensor) -> Tensor:
    """Finds the queries that are in the reference set too, bit for bit.

    A query that is in the database finds itself first and makes every measure look better. Give the images themselves:
    different images may well have the same code.

    Args:
        query: ``[Q, *]``, of any dtype.
        reference: ``[N, *]``, items of the same shape and dtype.

    Returns:
        int64 ``[M]`` on the CPU: the rows of ``query`` that equal some row of ``reference``, in increasing order.

    Raises:
        TypeError: If either is no tensor, or the dtypes differ.
        ValueError: If the items' shapes differ.

    Example:
        >>> overlap(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[5, 6], [3, 4]]))
        tensor([1])
    """
    check_tensor("query", query)
    check_tensor("reference", reference)
    if query.dtype != reference.dtype:
        raise TypeError(f"reference: expected the dtype of query, {query.dtype}, got {reference.dtype}")
    if query.ndim == 0 or reference.shape[1:] != query.shape[1:]:
        raise ValueError(f"reference: expected items like query, {list(query.shape)}, got {list(reference.shape)}")
    known = set(_digests(reference))
    return torch.tensor([row for row, digest in enumerate(_digests(query)) if digest in known], dtype=torch.int64)


def _digests(items: Tensor) -> list[bytes]:
    """Digests of 128 bits, by which equal items are told: no two others will ever share one by chance."""
    size = max(1, items[:1].numel() * items.element_size())
    return [
        hashlib.blake2b(row.tobytes(), digest_size=16).digest()
        for part in torch.split(items.detach(), max(1, _MAX_BYTES_HELD // size))
        for row in part.cpu().contiguous()[:, None].flatten(1).view(torch.uint8).numpy()
    ]
