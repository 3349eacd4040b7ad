"""Clustering by k-means."""

from __future__ import annotations

import torch
from torch import Tensor

from mdprop_ext import ops
from mdprop_ext._arguments import check_integer
from mdprop_ext.metrics._arguments import check_embeddings

# Values of a temporary copy of some rows.
_MAX_VALUES_HELD = 1 << 22


@torch.no_grad()
def k_means(points: Tensor, clusters: int, *, seed: int = 0, iterations: int = 100) -> tuple[Tensor, Tensor]:
    """Partitions points into clusters, each point in that of the nearest centre.

    Lloyd's algorithm: centres become the means of their clusters and points change to the nearest centre, until no
    point changes. The first centres are drawn by k-means++, each with a chance that is proportional to the squared
    distance to the nearest one before it. A cluster that runs empty restarts at the point farthest from its centre.
    Beside the points and a few numbers for each, memory does not grow with them; no matrix of distances is held.

    Args:
        points: Floating-point tensor ``[N, D]``; float16 and bfloat16 are clustered as float32.
        clusters: Number of clusters, from 1 to N. Where there are fewer different points, some stay empty.
        seed: Of the draw of first centres.
        iterations: How often points may change, at least 1.

    Returns:
        The cluster of each point, int64 ``[N]``, and the centres ``[clusters, D]``.

    Raises:
        TypeError: If ``points`` are not floating-point, or a number is not an int.
        ValueError: If the shape is not ``[N, D]``, a value is not finite, or a number is out of range.

    Example:
        >>> k_means(torch.tensor([[0.0], [0.2], [9.0]]), 2)[0].unique_consecutive(return_counts=True)[1]
        tensor([2, 1])

    Reference:
        D. Arthur, S. Vassilvitskii: k-means++: The Advantages of Careful Seeding. SODA 2007.
    """
    check_embeddings("points", points)
    check_integer("clusters", clusters, least=1)
    check_integer("iterations", iterations, least=1)
    if clusters > len(points):
        raise ValueError(f"clusters: expected at most the {len(points)} points, got {clusters}")
    points = points.detach() if points.dtype in (torch.float32, torch.float64) else points.detach().float()
    centres = _spread_centres(points, clusters, seed)
    distances, assigned = _nearest(points, centres)
    for _ in range(iterations):
        centres = _means(points, assigned, centres, distances)
        before = assigned
        distances, assigned = _nearest(points, centres)
        if torch.equal(assigned, before):
            break
    return assigned, centres


def _nearest(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the squared distance to the nearest centre and its index, both ``[N]``."""
    distances, indices = ops.knn_topk(points, centres, 1, metric="sqeuclidean")
    return distances[:, 0], indices[:, 0]


def _spread_centres(points: Tensor, clusters: int, seed: int) -> Tensor:
    """Draws centres ``[clusters, D]`` among the points by k-means++."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(clusters, generator=generator, dtype=torch.float64).to(points.device)
    squares = points.square().sum(1)
    chosen = (draws[0] * len(points)).long()[None]
    centres = [points[chosen]]
    gaps = torch.full_like(squares, torch.inf)
    for draw in draws[1:]:
        products = points @ centres[-1][0]
        # Rounding must not give a chosen point, or a copy of it, another chance.
        gaps = torch.minimum(gaps, (squares - 2 * products + squares[chosen]).clamp(min=0))
        gaps[chosen] = 0
        reach = gaps.cumsum(0, dtype=torch.float64)
        chosen = torch.searchsorted(reach, draw * reach[-1:], right=True).clamp(max=len(points) - 1)
        centres.append(points[chosen])
    return torch.cat(centres)


def _means(points: Tensor, assigned: Tensor, centres: Tensor, distances: Tensor) -> Tensor:
    """Returns the mean of each cluster; for an empty one, a point that is far from its centre."""
    sums = torch.zeros(centres.shape, dtype=torch.float64, device=points.device)
    rows = max(1, _MAX_VALUES_HELD // points.shape[1])
    for part, clusters in zip(torch.split(points, rows), torch.split(assigned, rows), strict=True):
        sums.index_add_(0, clusters, part.double())
    sizes = torch.bincount(assigned, minlength=len(centres))
    means = (sums / sizes.clamp(min=1)[:, None]).to(points.dtype)
    empty = (sizes == 0).nonzero()[:, 0]
    farthest = distances.sort(descending=True, stable=True).indices[: len(empty)] if len(empty) else empty
    means[empty] = points[farthest]
    return means
