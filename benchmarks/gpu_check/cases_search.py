"""knn_topk and hamming_topk on a card against products with topk, faiss and cuVS, and against loops over groups."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_check.plan import Planned, deferred, name_of
from benchmarks.gpu_check.search_peers import cuvs_knn, faiss_hamming, faiss_knn, int8_topk, looped, mm_topk
from benchmarks.harness import Case
from mdprop_ext import ops
from mdprop_ext.reference.hamming_topk import hamming_topk as hamming_reference
from mdprop_ext.reference.knn_topk import knn_topk as knn_reference

REFERENCE_PAIRS = 1_000_000_000  # more would take the reference seconds a call

FEW_QUERIES = 64  # up to here a search takes the time to read its points, not to multiply


@dataclass(frozen=True)
class Search:
    """One row of knn_topk."""

    queries: int
    points: int
    dim: int
    k: int
    metric: str = "sqeuclidean"
    dtype: torch.dtype = torch.float32

    @property
    def label(self) -> str:
        """What the case column says."""
        metric = "" if self.metric == "sqeuclidean" else f", {self.metric}"
        return f"{self.queries} x {self.points}, D {self.dim}, k {self.k}{metric}"

    @property
    def flops(self) -> float:
        """Of all products."""
        return 2.0 * self.queries * self.points * self.dim


KNN = (
    Search(10_000, 1_000_000, 128, 10),
    Search(1000, 200_000, 128, 10),
    Search(10_000, 1_000_000, 128, 100),
    Search(10_000, 1_000_000, 128, 10, dtype=torch.bfloat16),
    Search(1, 1_000_000, 128, 10),
    Search(1000, 200_000, 128, 10, "cosine"),
    Search(1000, 200_000, 128, 10, dtype=torch.float64),
    Search(10_000, 1_000_000, 64, 10),
    Search(10_000, 1_000_000, 128, 1),
    Search(1000, 200_000, 128, 10, "dot"),
    Search(10_000, 1_000_000, 768, 10),
    Search(10_000, 1_000_000, 32, 10),
    Search(10_000, 1_000_000, 128, 1000),
)
# Bits, queries, codes, k.
HAMMING = (
    (64, 10_000, 1_000_000, 10),
    (128, 10_000, 1_000_000, 10),
    (64, 1000, 200_000, 10),
    (64, 10_000, 1_000_000, 100),
    (256, 10_000, 1_000_000, 10),
    (64, 1, 1_000_000, 10),
    (64, 100, 10_000_000, 10),
    (512, 10_000, 1_000_000, 10),
)
EQUAL, RAGGED = GROUPS = ("1000 groups of 100 x 1000", "100 ragged groups")


def plan_knn() -> list[Planned]:
    """All rows of knn_topk."""
    rows = [Planned("knn_topk", row.label, name_of(row.dtype), partial(knn_case, row)) for row in KNN]
    groups = [Planned("knn_topk", f"{name}, D 128, k 10", "float32", partial(knn_groups_case, name)) for name in GROUPS]
    return [rows[0], groups[0], *rows[1:], *groups[1:]]


def plan_hamming() -> list[Planned]:
    """All rows of hamming_topk."""
    rows = [Planned("hamming_topk", hamming_label(*row), "int64", partial(hamming_case, *row)) for row in HAMMING]
    groups = [
        Planned("hamming_topk", f"{name}, 64 bits, k 10", "int64", partial(hamming_groups_case, name))
        for name in GROUPS
    ]
    return [*rows[:3], groups[0], *rows[3:], *groups[1:]]


def hamming_label(bits: int, queries: int, codes: int, k: int) -> str:
    """What the case column says."""
    return f"{queries} x {codes}, {bits} bits, k {k}"


def check_knn(ours: tuple[Tensor, Tensor], theirs: Any) -> None:
    """Distances agree as far as fp32 products find them; which of two nearly equal points came first is left open."""
    distances = theirs[0] if isinstance(theirs, tuple) else theirs
    torch.testing.assert_close(distances, ours[0], rtol=1e-3, atol=1e-3)


def check_hamming(ours: tuple[Tensor, Tensor], theirs: Any) -> None:
    """Distances are integers; peers leave the order of ties open."""
    distances = theirs[0] if isinstance(theirs, tuple) else theirs
    assert distances.to(torch.int32).equal(ours[0]), "other distances"


def knn_case(row: Search, device: str = "cuda") -> Case:
    """One search among vectors."""
    torch.manual_seed(0)
    queries, points = (torch.randn(rows, row.dim, device=device).to(row.dtype) for rows in (row.queries, row.points))
    # Products of bfloat16 are not exact enough for distances: the peers get what they need beforehand.
    a, b = (rows.float() if row.dtype == torch.bfloat16 else rows for rows in (queries, points))
    peers: dict[str, Any] = {"mm_topk": lambda: mm_topk(a, b, row.k, row.metric), "reference": None}
    if row.metric == "sqeuclidean" and row.dtype != torch.float64:
        peers |= {"faiss": deferred(faiss_knn, a, b, row.k), "cuvs": deferred(cuvs_knn, a, b, row.k)}
    if row.queries * row.points <= REFERENCE_PAIRS:
        peers["reference"] = lambda: knn_reference(queries, points, row.k, metric=row.metric)
    few = row.queries <= FEW_QUERIES
    return Case(
        op="knn_topk",
        case=row.label,
        dtype=name_of(row.dtype),
        device=device,
        ours=lambda: ops.knn_topk(queries, points, row.k, metric=row.metric),
        peers=peers,
        check=check_knn,
        work=row.flops,
        unit="flop/s",
        least_bytes=points.nbytes + queries.nbytes if few else 0,
        least_flops=0.0 if few or row.dtype == torch.float64 else row.flops,
    )


def group_sizes(name: str) -> tuple[list[int], list[int]]:
    """Rows of queries and of points in each group, as lists."""
    if name == EQUAL:
        return [100] * 1000, [1000] * 1000
    generator = torch.Generator().manual_seed(0)
    queries = torch.randint(1, 400, (100,), generator=generator)
    return queries.tolist(), torch.randint(20, 9000, (100,), generator=generator).tolist()


def offsets(sizes: list[int]) -> Tensor:
    """Where groups begin and end, ``[G + 1]``."""
    return torch.tensor([0, *sizes]).cumsum(0).cuda()


def knn_groups_case(name: str, dim: int = 128, k: int = 10) -> Case:
    """One search in each of many groups."""
    torch.manual_seed(0)
    sizes = group_sizes(name)
    queries, points = (torch.randn(sum(rows), dim, device="cuda") for rows in sizes)
    groups = (offsets(sizes[0]), offsets(sizes[1]))
    pairs = sum(a * b for a, b in zip(*sizes, strict=True))
    return Case(
        op="knn_topk",
        case=f"{name}, D {dim}, k {k}",
        dtype="float32",
        device="cuda",
        ours=lambda: ops.knn_topk(queries, points, k, metric="sqeuclidean", groups=groups),
        peers={"loop": lambda: looped(lambda q, p: mm_topk(q, p, k), queries, points, sizes)},
        check=check_knn,
        work=2.0 * pairs * dim,
        unit="flop/s",
        least_flops=2.0 * pairs * dim,
    )


def signs(rows: int, bits: int) -> Tensor:
    """Random codes as +-1 in int8."""
    return torch.randint(0, 2, (rows, bits), dtype=torch.int8, device="cuda") * 2 - 1


def hamming_case(bits: int, num_queries: int, num_codes: int, k: int) -> Case:
    """One search among codes."""
    torch.manual_seed(0)
    loose = signs(-(-num_queries // 32) * 32, bits), signs(num_codes, bits)  # tensor cores take whole tiles of rows
    queries, codes = (ops.pack_codes(each) for each in loose)
    queries = queries[:num_queries]
    peers: dict[str, Any] = {
        "int8_topk": lambda: int8_topk(*loose, k)[:num_queries],
        "faiss": deferred(faiss_hamming, queries, codes, k, bits),
        "reference": None,
    }
    if num_queries * num_codes <= REFERENCE_PAIRS:
        peers["reference"] = lambda: hamming_reference(queries, codes, k, bits=bits)
    return Case(
        op="hamming_topk",
        case=hamming_label(bits, num_queries, num_codes, k),
        dtype="int64",
        device="cuda",
        ours=lambda: ops.hamming_topk(queries, codes, k, bits=bits),
        peers=peers,
        check=check_hamming,
        work=float(num_queries * num_codes),
        unit="pairs/s",
    )


def hamming_groups_case(name: str, bits: int = 64, k: int = 10) -> Case:
    """One search in each of many groups."""
    torch.manual_seed(0)
    sizes = group_sizes(name)
    loose = [signs(sum(rows), bits) for rows in sizes]
    queries, codes = (ops.pack_codes(each) for each in loose)
    groups = (offsets(sizes[0]), offsets(sizes[1]))
    floats = loose[0].half(), loose[1].half()

    def search(some: Tensor, others: Tensor) -> Tensor:
        return (bits - (some @ others.T).topk(k).values) / 2

    return Case(
        op="hamming_topk",
        case=f"{name}, {bits} bits, k {k}",
        dtype="int64",
        device="cuda",
        ours=lambda: ops.hamming_topk(queries, codes, k, bits=bits, groups=groups),
        peers={"loop": lambda: looped(search, *floats, sizes)},
        check=check_hamming,
        work=float(sum(a * b for a, b in zip(*sizes, strict=True))),
        unit="pairs/s",
    )
