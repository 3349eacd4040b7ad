"""Other ways to find nearest neighbours on a card: matrix products with topk, faiss, cuVS.

Each takes and gives tensors on the card. The libraries are imported when they are wanted; an index is built once,
outside of what is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

TILE = 1 << 28  # distances that exist at once


def mm_topk(queries: Tensor, points: Tensor, k: int, metric: str = "sqeuclidean") -> Tensor:
    """Distances ``[Q, k]`` by products, squared ones by the expansion with norms: not exact, no order of ties."""
    if metric != "sqeuclidean":
        return products_topk(queries, points, k, metric)
    norms = points.square().sum(1)
    parts = []
    for rows in torch.split(queries, max(1, TILE // len(points))):
        scores = torch.addmm(norms, rows, points.T, alpha=-2)
        parts.append((scores.topk(k, largest=False).values + rows.square().sum(1, keepdim=True)).clamp(min=0))
    return torch.cat(parts)


def products_topk(queries: Tensor, points: Tensor, k: int, metric: str) -> Tensor:
    """Cosine or negative dot products ``[Q, k]``."""
    if metric == "cosine":
        queries, points = (torch.nn.functional.normalize(rows, dim=1) for rows in (queries, points))
    parts = [(rows @ points.T).topk(k).values for rows in torch.split(queries, max(1, TILE // len(points)))]
    return (1 if metric == "cosine" else 0) - torch.cat(parts)


def int8_topk(queries: Tensor, codes: Tensor, k: int) -> Tensor:
    """Hamming distances ``[Q, k]`` of codes written as +-1 in int8, by products on tensor cores."""
    bits = queries.shape[1]
    parts = []
    for rows in torch.split(queries, max(32, TILE // len(codes) // 32 * 32)):
        parts.append((bits - torch._int_mm(rows, codes.T).topk(k).values) // 2)
    return torch.cat(parts)


def looped(search: Callable[[Tensor, Tensor], Tensor], queries: Tensor, points: Tensor, sizes: Any) -> Tensor:
    """The distances of one search a group, which all have at least k points."""
    parts = zip(torch.split(queries, sizes[0]), torch.split(points, sizes[1]), strict=True)
    return torch.cat([search(*part) for part in parts])


def faiss_knn(queries: Tensor, points: Tensor, k: int) -> Callable[[], Tensor]:
    """The flat index of faiss: squared distances in fp32, not exact."""
    import faiss
    import faiss.contrib.torch_utils  # teaches faiss to take tensors

    index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), queries.shape[1])
    index.add(points)
    return lambda: index.search(queries, k)[0]  # type: ignore[no-any-return]


def cuvs_knn(queries: Tensor, points: Tensor, k: int) -> Callable[[], Tensor]:
    """The brute-force search of cuVS: squared distances in fp32, not exact."""
    from cuvs.common import Resources
    from cuvs.neighbors import brute_force

    resources = Resources(stream=torch.cuda.current_stream().cuda_stream)
    index = brute_force.build(points, metric="sqeuclidean", resources=resources)
    distances = torch.empty(len(queries), k, device="cuda")
    indices = torch.empty(len(queries), k, dtype=torch.int64, device="cuda")

    def search() -> Tensor:
        brute_force.search(index, queries, k, neighbors=indices, distances=distances, resources=resources)
        return distances

    return search


def faiss_hamming(queries: Tensor, codes: Tensor, k: int, bits: int) -> Callable[[], Tensor]:
    """The flat binary index of faiss, which takes its queries from the host."""
    import faiss

    def rows(packed: Tensor) -> Any:
        return packed.cpu().view(torch.uint8)[:, : bits // 8].contiguous().numpy()

    index = faiss.GpuIndexBinaryFlat(faiss.StandardGpuResources(), bits)
    index.add(rows(codes))
    given = rows(queries)
    return lambda: torch.from_numpy(index.search(given, k)[0]).cuda()
