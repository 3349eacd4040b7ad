"""knn_topk in plain PyTorch: a tiled matrix product finds candidates, distances in float64 decide.

The product is rounded, so it may only discard a point when a bound proves that k others are nearer. Queries for which
the bound is too coarse (equal points, huge norms, NaN) are searched again by the direct formula alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TILE_VALUES = 1 << 24
"""Values of the largest temporary, so that memory does not grow with queries times points."""

QUERIES_PER_TILE = 256

CACHED_VALUES = 1 << 17
"""Values of a temporary in float64 that stays in the cache."""


@torch.no_grad()
def knn_topk(
    queries: Tensor, points: Tensor, k: int, *, metric: str, groups: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Exact k nearest points of each query; see ``mdprop_ext.ops.knn_topk`` for the arguments. Carries no gradient."""
    if groups is None:
        return _search(queries, points, k, metric)
    query_sizes, point_sizes = (offsets.diff().tolist() for offsets in groups)
    parts = zip(torch.split(queries, query_sizes), torch.split(points, point_sizes), groups[1].tolist(), strict=False)
    results = [(*_search(rows, group, k, metric), first) for rows, group, first in parts]
    if not results:
        return _search(queries, points, k, metric)
    indices = [torch.where(found >= 0, found + first, -1) for _, found, first in results]
    return torch.cat([distances for distances, _, _ in results]), torch.cat(indices)


def _search(queries: Tensor, points: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor]:
    """The k nearest of all points."""
    found = min(k, points.shape[0])
    dtype = torch.float64 if queries.dtype == torch.float64 else torch.float32
    distances = torch.full((queries.shape[0], k), torch.inf, dtype=dtype, device=queries.device)
    indices = torch.full((queries.shape[0], k), -1, dtype=torch.int64, device=queries.device)
    if found == 0 or queries.shape[0] == 0:
        return distances, indices
    filtered_points = _filter_points(points, metric)
    candidates = min(found + max(16, found // 4), points.shape[0])
    rows = QUERIES_PER_TILE
    for first in range(0, queries.shape[0], rows):
        block = queries[first : first + rows]
        near, certain = _candidates(block, filtered_points, found, candidates, metric)
        exact = _candidate_distances(block, points, near, metric).to(dtype) + 0.0
        # A stable sort by distance after one by index orders pairs.
        near, order = near.sort(dim=1)
        exact, order = exact.gather(1, order).sort(dim=1, stable=True)
        distances[first : first + rows, :found] = exact[:, :found]
        indices[first : first + rows, :found] = near.gather(1, order)[:, :found]
        for row in torch.nonzero(~certain).flatten().tolist():
            best = _search_directly(block[row], points, found, metric, dtype)
            distances[first + row, :found], indices[first + row, :found] = best
    return distances, indices


def _candidate_distances(queries: Tensor, points: Tensor, near: Tensor, metric: str) -> Tensor:
    """Distances ``[Q, M]`` in float64 to the points ``near`` ``[Q, M]``."""
    distances = torch.empty(near.shape, dtype=torch.float64, device=near.device)
    rows = max(1, CACHED_VALUES // (near.shape[1] * max(1, points.shape[1])))
    for first in range(0, queries.shape[0], rows):
        part = near[first : first + rows]
        gathered = points.index_select(0, part.flatten()).reshape(*part.shape, -1).double()
        distances[first : first + rows] = _pair_distances(queries[first : first + rows, None], gathered, metric)
    return distances


def _pair_distances(queries: Tensor, points: Tensor, metric: str) -> Tensor:
    """Distances in float64 by the direct formula, over the last dimension. Overwrites ``points``, a float64 tensor."""
    queries = queries.double()
    if metric == "dot":
        return -points.mul_(queries).sum(-1)
    if metric == "cosine":
        query_norm, point_norm = _norm(queries), _norm(points)
        distance = (1 - points.mul_(queries).sum(-1) / (query_norm * point_norm)).clamp(0, 2)
        return torch.where((query_norm == 0) | (point_norm == 0), 1.0, distance)
    square = points.sub_(queries).square_().sum(-1)
    return square if metric == "sqeuclidean" else square.sqrt_()


def knn_topk_backward(
    grad: Tensor, queries: Tensor, points: Tensor, distances: Tensor, indices: Tensor, metric: str
) -> tuple[Tensor, Tensor]:
    """Gradients of ``(grad * distances).sum()`` with respect to queries and points, for the neighbours found."""
    grad_queries = torch.empty_like(queries, memory_format=torch.contiguous_format)
    grad_points = torch.zeros(points.shape, dtype=torch.float64, device=points.device)
    real = indices >= 0
    slopes = torch.where(real, grad.double(), 0.0)
    if metric == "sqeuclidean":
        slopes = 2 * slopes
    elif metric == "euclidean":
        slopes = torch.where(distances == 0, 0.0, slopes / distances.double())
    rows = max(1, TILE_VALUES // max(1, indices.shape[1] * points.shape[1]))
    for first in range(0, queries.shape[0], rows):
        part = slice(first, first + rows)
        q = queries[part, None].double()
        x = points[indices[part].clamp(min=0)].double() if points.shape[0] else q.expand(-1, indices.shape[1], -1)
        by_query, by_point = _pair_gradients(q, x, slopes[part, :, None], metric)
        grad_queries[part] = torch.where(real[part, :, None], by_query, 0.0).sum(1).to(queries.dtype)
        # In float64 this adds in order, one pair after the other.
        grad_points.index_put_((indices[part][real[part]],), by_point[real[part]], accumulate=True)
    return grad_queries, grad_points.to(points.dtype)


def _pair_gradients(q: Tensor, x: Tensor, slopes: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    if metric == "dot":
        return -slopes * x, -slopes * q
    if metric == "cosine":
        q_norm, x_norm = _norm(q)[..., None], _norm(x)[..., None]
        slopes = torch.where((q_norm == 0) | (x_norm == 0), 0.0, slopes)
        q_unit, x_unit = q / q_norm.where(q_norm != 0, 1), x / x_norm.where(x_norm != 0, 1)
        cosine = (q_unit * x_unit).sum(-1, keepdim=True)
        q_norm, x_norm = q_norm.where(q_norm != 0, 1), x_norm.where(x_norm != 0, 1)
        return slopes * (cosine * q_unit - x_unit) / q_norm, slopes * (cosine * x_unit - q_unit) / x_norm
    by_query = slopes * (q - x)
    return by_query, -by_query


def _norm(rows: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float64)
    return norm


class _FilterPoints(NamedTuple):
    """Points as the matrix product takes them: ``lower = bias - q . row`` bounds a score that grows with distance."""

    rows: Tensor  # [N, D] centred for the euclidean metrics, of unit length for cosine; zero where unusable
    bias: Tensor  # [N] float32 or float64; -inf where unusable, so that such a point is always a candidate
    width: Tensor  # [N] what lower + width adds up to is an upper bound of the score; inf where unusable
    centre: Tensor  # [D]


def _is_euclidean(metric: str) -> bool:
    return metric in ("sqeuclidean", "euclidean")


def _rounding(rows: Tensor) -> tuple[float, float]:
    """Relative and absolute rounding bound of the filter for rows of D values.

    With unit roundoff u a sum of D products errs by (D + 1) u in any order. Centring, normalising, the float64 formula
    and the one rounding that must keep distances distinct add less than another (D + 50) u, relative to the squared
    norms of both rows for the euclidean metrics, to their product for the others. The absolute part covers underflow.
    """
    double = rows.dtype == torch.float64
    dim = rows.shape[-1]
    relative = (2 * dim + 64) * (2.0**-53 if double else 2.0**-24)
    if not double and torch.get_float32_matmul_precision() != "highest":
        relative += 2.0**-6  # factors may be rounded to bfloat16
    return relative, (4 * dim + 16) * torch.finfo(rows.dtype).tiny


def _usable(square: Tensor, dtype: torch.dtype) -> Tensor:
    """Whether neither overflow nor underflow can touch the products of a row; false for NaN."""
    low, high = (2.0**-900, 2.0**900) if dtype == torch.float64 else (2.0**-200, 2.0**100)
    return (square == 0) | ((square >= low) & (square <= high))


def _filter_rows(rows: Tensor, centre: Tensor, metric: str, unit: bool) -> tuple[Tensor, Tensor]:
    """Rows in filter form and their squared norms in float64, before scaling to unit length."""
    rows = rows.to(centre.dtype)
    if _is_euclidean(metric):
        rows = rows - centre
    norm = _norm(rows)
    usable = _usable(norm.square(), rows.dtype)
    if unit:
        rows = (rows / norm.where(norm != 0, 1.0)[:, None]).to(rows.dtype)
    return rows if bool(usable.all()) else torch.where(usable[:, None], rows, 0.0), norm.square()


def _filter_points(points: Tensor, metric: str) -> _FilterPoints:
    dtype = torch.float64 if points.dtype == torch.float64 else torch.float32
    # Any centre is right; one near the points makes the bound small relative to the distances.
    step = max(1, points.shape[0] // 256)
    centre = points[::step].double().mean(0).to(dtype)
    centre = torch.where(centre.isfinite(), centre, 0.0)
    rows, square = _filter_rows(points, centre, metric, unit=metric == "cosine")
    relative, absolute = _rounding(rows)
    size = square if _is_euclidean(metric) else torch.ones_like(square) if metric == "cosine" else square.sqrt()
    reach = relative * size + absolute
    bias = (square / 2 if _is_euclidean(metric) else 0.0) - reach
    usable = _usable(square, dtype)
    bias, width = torch.where(usable, bias, -torch.inf).to(dtype), torch.where(usable, 2 * reach, torch.inf).to(dtype)
    return _FilterPoints(rows, bias, width, centre)


def _candidates(queries: Tensor, points: _FilterPoints, k: int, count: int, metric: str) -> tuple[Tensor, Tensor]:
    """The ``count`` points with the lowest bounds, and whether they certainly hold the k nearest.

    Returns:
        indices ``[Q, count]`` and certain ``[Q]``.
    """
    rows, square = _filter_rows(queries, points.centre, metric, unit=not _is_euclidean(metric))
    lower = rows.new_empty(rows.shape[0], 0)
    indices = torch.empty(lower.shape, dtype=torch.int64, device=rows.device)
    tile = max(count, TILE_VALUES // max(1, rows.shape[0]))
    for first in range(0, points.rows.shape[0], tile):
        scores = torch.addmm(points.bias[first : first + tile], rows, points.rows[first : first + tile].T, alpha=-1)
        best, where = scores.topk(min(count, scores.shape[1]), largest=False, sorted=False)
        lower, indices = torch.cat([lower, best], 1), torch.cat([indices, where + first], 1)
        if lower.shape[1] > count:
            lower, where = lower.topk(count, largest=False, sorted=False)
            indices = indices.gather(1, where)
    if count == points.rows.shape[0]:
        return indices, torch.ones(rows.shape[0], dtype=torch.bool, device=rows.device)
    upper = torch.where(lower == -torch.inf, torch.inf, lower + points.width[indices])
    kth = upper.kthvalue(k, dim=1).values
    certain = lower.amax(1).double() > kth.double() + _allowance(square, rows, metric)
    return indices, certain & _usable(square, rows.dtype)


def _allowance(square: Tensor, rows: Tensor, metric: str) -> Tensor:
    """What a query adds to the rounding bound of each of its scores, twice."""
    relative, absolute = _rounding(rows)
    if _is_euclidean(metric):
        return 2 * (relative * square + absolute)
    inverse = torch.where(square == 0, 0.0, square.rsqrt()) if metric == "dot" else torch.zeros_like(square)
    return 2 * absolute * (1 + inverse)


def _search_directly(query: Tensor, points: Tensor, k: int, metric: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The k nearest points of one query without a filter."""
    tile = max(1, CACHED_VALUES // max(1, points.shape[1]))
    parts = (part.to(torch.float64, copy=True) for part in torch.split(points, tile))
    distances = torch.cat([_pair_distances(query, part, metric) for part in parts]).to(dtype) + 0.0
    distances, indices = distances.sort(stable=True)
    return distances[:k], indices[:k]
