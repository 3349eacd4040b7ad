"""knn_topk against the exact reference, and against products and topk that round in float32."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Case
from mdprop_ext import ops
from mdprop_ext.reference.knn_topk import knn_topk as reference

# Queries, points, dimension, k, metric: retrieval, one batch against itself, nearest only, few queries, low dimension,
# many neighbours, all of them, tiny.
SHAPES = (
    (1000, 200000, 128, 10, "sqeuclidean"),
    (600, 600, 64, 20, "sqeuclidean"),
    (2000, 2000, 64, 1, "sqeuclidean"),
    (1000, 20000, 8, 10, "euclidean"),
    (1, 200000, 128, 10, "dot"),
    (8, 50000, 64, 10, "cosine"),
    (500, 20000, 512, 100, "cosine"),
    (500, 20000, 64, 1000, "sqeuclidean"),
    (200, 300, 64, 300, "euclidean"),
    (4, 50, 16, 3, "sqeuclidean"),
)
# Groups, queries and points of each: one search a class.
GROUPS = (1000, 100, 1000, 64, 10, "sqeuclidean")
HALF = (500, 10000, 64, 10, "sqeuclidean")
QUICK = (600, 600, 64, 20, "sqeuclidean")


def tiled(queries: Tensor, points: Tensor, k: int, *, metric: str) -> Tensor:
    """Distances by ``|q|^2 + |x|^2 - 2 <q, x>`` in tiles of 64 MB: no exactness, no order of ties, no gradient."""
    if metric == "cosine":
        queries, points = (torch.nn.functional.normalize(rows) for rows in (queries, points))
    euclidean = metric in ("sqeuclidean", "euclidean")
    offset = points.square().sum(1) if euclidean else points.new_full((1,), 1.0 if metric == "cosine" else 0.0)
    rows = max(1, (1 << 24) // points.shape[0])
    parts = []
    for part in torch.split(queries, rows):
        scores = torch.addmm(offset, part, points.T, alpha=-2 if euclidean else -1)
        best = scores.topk(k, largest=False).values.float()
        if euclidean:
            best = (best + part.float().square().sum(1, keepdim=True)).clamp(min=0)
        parts.append(best.sqrt() if metric == "euclidean" else best)
    return torch.cat(parts)


def faiss_search(queries: Tensor, points: Tensor, k: int) -> Callable[[], Tensor] | None:
    """The flat index of faiss, built beforehand, or None where faiss is not installed."""
    if importlib.util.find_spec("faiss") is None:
        return None
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(points.shape[1])
    index.add(points.numpy())
    return lambda: torch.from_numpy(index.search(queries.numpy(), k)[0])


def check(ours: tuple[Tensor, Tensor], theirs: Any) -> None:
    """The reference must find the same points; peers that round in their own way, about the same distances."""
    if isinstance(theirs, tuple):
        torch.testing.assert_close(theirs[0], ours[0], rtol=1e-6, atol=1e-12)
        assert (theirs[1] != ours[1]).float().mean() < 1e-4  # the last bit of a float64 sum may swap two
    else:
        tolerance = 1e-3 if ours[0].dtype == torch.float64 else 1e-2
        torch.testing.assert_close(theirs.to(ours[0].dtype), ours[0], rtol=tolerance, atol=tolerance)


def cases() -> Iterator[Case]:
    for shape in SHAPES:
        yield case(shape, torch.float32)
    for dtype in (torch.float64, torch.bfloat16):
        yield case(HALF, dtype)
    yield group_case()


def case(shape: tuple[int, int, int, int, str], dtype: torch.dtype) -> Case:
    torch.manual_seed(0)
    num_queries, num_points, dim, k, metric = shape
    queries, points = torch.randn(num_queries, dim).to(dtype), torch.randn(num_points, dim).to(dtype)
    peers: dict[str, Callable[[], Any] | None] = {
        "reference": lambda: reference(queries, points, k, metric=metric),
        # In bfloat16 the product alone loses the neighbours: its results could not be compared.
        "addmm_topk": None if dtype == torch.bfloat16 else lambda: tiled(queries, points, k, metric=metric),
    }
    if metric == "sqeuclidean" and dtype == torch.float32:
        peers["faiss"] = faiss_search(queries, points, k)
    return Case(
        op="knn_topk",
        case=f"{num_queries} x {num_points}, D {dim}, k {k}, {metric}",
        dtype=str(dtype).removeprefix("torch."),
        ours=lambda: ops.knn_topk(queries, points, k, metric=metric),
        peers=peers,
        check=check,
        work=2.0 * num_queries * num_points * dim,
        unit="flop/s",
        quick=shape == QUICK,
    )


def group_case() -> Case:
    """One call against a loop over the groups."""
    torch.manual_seed(0)
    num_groups, num_queries, num_points, dim, k, metric = GROUPS
    queries, points = torch.randn(num_groups * num_queries, dim), torch.randn(num_groups * num_points, dim)
    offsets = torch.arange(num_groups + 1)
    groups = (offsets * num_queries, offsets * num_points)
    pairs = list(zip(queries.split(num_queries), points.split(num_points), strict=True))
    return Case(
        op="knn_topk",
        case=f"{num_groups} groups of {num_queries} x {num_points}, D {dim}, k {k}, {metric}",
        dtype="float32",
        ours=lambda: ops.knn_topk(queries, points, k, metric=metric, groups=groups),
        peers={
            "reference": lambda: reference(queries, points, k, metric=metric, groups=groups),
            "addmm_topk": lambda: torch.cat([tiled(q, x, k, metric=metric) for q, x in pairs]),
        },
        check=check,
        work=2.0 * queries.shape[0] * num_points * dim,
        unit="flop/s",
    )
