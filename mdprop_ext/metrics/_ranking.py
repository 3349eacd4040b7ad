"""Rankings of items for each query."""

from __future__ import annotations

from torch import Tensor

from mdprop_ext import ops


def ranked(query: Tensor, reference: Tensor, depth: int, *, left_out: Tensor | None) -> Tensor:
    """Returns what :func:`mdprop_ext.metrics.nearest_neighbours` does, of arguments that are checked already."""
    if left_out is None:
        return ops.knn_topk(query, reference, depth, metric="sqeuclidean")[1]
    return without_own(ops.knn_topk(query, reference, depth + 1, metric="sqeuclidean")[1], left_out)


def without_own(indices: Tensor, own: Tensor) -> Tensor:
    """Removes from each ranking ``[Q, depth + 1]`` the item ``own[i]``, or the last where it is not among them."""
    kept = indices != own[:, None]
    kept[:, -1] &= ~kept.all(1)
    return indices[kept].view(len(own), -1)
