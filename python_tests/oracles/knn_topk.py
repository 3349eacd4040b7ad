"""The oracle of knn_topk: the matrix of all distances in float64, rounded once and sorted."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def knn_topk_distances(queries: Tensor, points: Tensor, metric: str) -> Tensor:
    """All distances ``[Q, N]`` in float64, one query at a time; differentiable where the distance is."""
    x = points.double()
    rows = [_distances(q, x, metric) for q in queries.double()]
    return torch.stack(rows) if rows else x.new_empty(0, x.shape[0])


def _distances(q: Tensor, x: Tensor, metric: str) -> Tensor:
    if metric == "dot":
        return -_sum(q * x)
    if metric == "cosine":
        q_norm, x_norm = _sqrt(_sum(q.square()[None])), _sqrt(_sum(x.square()))
        distance = (1 - _sum(q * x) / (q_norm * x_norm)).clamp(0, 2)
        return torch.where((q_norm == 0) | (x_norm == 0), 1.0, distance)
    square = _sum((q - x).square())
    return square if metric == "sqeuclidean" else _sqrt(square)


def _sum(terms: Tensor) -> Tensor:
    """The sum of each row in the order that the op documents: eight interleaved sums, then these in pairs."""
    lanes = terms.new_zeros(terms.shape[0], 8)
    for part in torch.nn.functional.pad(terms, (0, -terms.shape[1] % 8)).split(8, dim=1):
        if part.shape[1] > 0:
            lanes = lanes + part
    halves = lanes[:, :4] + lanes[:, 4:]
    return (halves[:, 0] + halves[:, 2]) + (halves[:, 1] + halves[:, 3])


def _sqrt(x: Tensor) -> Tensor:
    """The nearest float64 to the root; that of torch, which has a gradient, may miss the last bit."""
    return x.sqrt() if x.requires_grad else torch.from_numpy(np.sqrt(x.numpy()))


def knn_topk_oracle(
    queries: Tensor, points: Tensor, k: int, *, metric: str, groups: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if queries.dtype == torch.float64 else torch.float32
    distances = torch.full((queries.shape[0], k), torch.inf, dtype=dtype)
    indices = torch.full((queries.shape[0], k), -1)
    ends = groups or (torch.tensor([0, queries.shape[0]]), torch.tensor([0, points.shape[0]]))
    for (q, q_end), (x, x_end) in zip(*(torch.stack([e[:-1], e[1:]], 1).tolist() for e in ends), strict=True):
        exact = knn_topk_distances(queries[q:q_end], points[x:x_end], metric).to(dtype) + 0.0
        nearest, order = exact.sort(dim=1, stable=True)
        found = min(k, x_end - x)
        distances[q:q_end, :found], indices[q:q_end, :found] = nearest[:, :found], order[:, :found] + x
    return distances, indices
