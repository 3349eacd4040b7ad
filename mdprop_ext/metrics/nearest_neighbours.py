"""What a query finds: its nearest neighbours among the references."""

from __future__ import annotations

import torch
from torch import Tensor

from mdprop_ext._arguments import check_integer
from mdprop_ext.metrics._arguments import check_device, check_labels, check_pair
from mdprop_ext.metrics._ranking import ranked


@torch.no_grad()
def nearest_neighbours(query: Tensor, reference: Tensor, k: int, *, left_out: Tensor | None = None) -> Tensor:
    """Finds the nearest references of each query, in the order that :func:`retrieval_metrics` ranks them.

    The distance is the Euclidean one of the embeddings as given; equal distances go by index.

    Args:
        query: Floating-point tensor ``[Q, D]``.
        reference: Floating-point tensor ``[N, D]``, of the same dtype and on the same device.
        k: Neighbours of each query, from 1 to N, or to N - 1 where one is left out.
        left_out: Integer tensor ``[Q]``: the reference that is the query's own item, such as the clean image of an
            attacked one, and no neighbour of it. None leaves out none.

    Returns:
        Positions in the reference, int64 ``[Q, k]``, nearest first.

    Raises:
        TypeError: If embeddings are not floating-point or differ in dtype, ``left_out`` does not hold integers, or
            ``k`` is not an int.
        ValueError: If shapes or devices disagree, a value is not finite, or ``k`` is out of range.

    Example:
        >>> embeddings = torch.tensor([[0.0], [1.0], [5.0]])
        >>> nearest_neighbours(embeddings, embeddings, 1, left_out=torch.arange(3)).tolist()
        [[1], [0], [1]]
    """
    check_pair(query, reference)
    check_integer("k", k, least=1)
    most = len(reference) - (left_out is not None)
    if k > most:
        raise ValueError(f"k: expected at most the {most} references that count, got {k}")
    if left_out is not None:
        check_labels("left_out", left_out, len(query))
        check_device("left_out", left_out, "query", query)
    return ranked(query, reference, k, left_out=left_out)
