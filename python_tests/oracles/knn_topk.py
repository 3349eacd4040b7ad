"""The oracle of knn_topk: the matrix of all distances in float64, rounded once and sorted."""

from __future__ import annotations

import torch
from torch import Tensor


def knn_topk_distances(queries: Tensor, points: Tensor, metric: str) -> Tensor:
    """All distances ``[Q, N]`` in float64, one query at a time; differentiable where the distance is."""
    x = points.double()
    rows = [_distances(q, x, metric) for q in queries.double()]
    return torch.stack(rows) if rows else x.new_empty(0, x.shape[0])


def _distances(q: Tensor, x: Tensor, metric: str) -> Tensor:
    if metric == "dot":
        return -(q * x).sum(1)
    if metric == "cosine":
        q_norm, x_norm = q.square().sum().sqrt(), x.square().sum(1).sqrt()
        distance = (1 - (q * x).sum(1) / (q_norm * x_norm)).clamp(0, 2)
        return torch.where((q_norm == 0) | (x_norm == 0), 1.0, distance)
    square = (q - x).square().sum(1)
    return square if metric == "sqeuclidean" else square.sqrt()


def knn_topk_oracle(queries: Tensor, points: Tensor, k: int, *, metric: str) -> tuple[Tensor, Tensor]:
    distances = knn_topk_distances(queries, points, metric) + 0.0
    distances = distances.to(torch.float64 if queries.dtype == torch.float64 else torch.float32)
    distances, indices = distances.sort(dim=1, stable=True)
    missing = max(0, k - points.shape[0])
    pad = torch.nn.functional.pad
    return (
        pad(distances[:, :k], (0, missing), value=torch.inf),
        pad(indices[:, :k], (0, missing), value=-1),
    )
