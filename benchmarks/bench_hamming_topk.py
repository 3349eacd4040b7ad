"""hamming_topk and its family against their references, and against the flat binary index of faiss."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Case, same
from mdprop_ext import ops
from mdprop_ext.reference import hamming_topk as reference

# Bits, queries, codes, k: large databases, wide codes, few queries, few codes, many neighbours, one batch.
SHAPES = (
    (64, 1000, 1_000_000, 10),
    (64, 1000, 1_000_000, 100),
    (64, 1000, 1_000_000, 1000),
    (48, 1000, 1_000_000, 10),
    (128, 1000, 1_000_000, 10),
    (128, 1000, 1_000_000, 100),
    (256, 1000, 300_000, 10),
    (1024, 200, 50_000, 10),
    (64, 1, 1_000_000, 10),
    (1024, 1, 50_000, 10),
    (64, 10, 200_000, 10),
    (64, 100, 200_000, 10),
    (64, 100, 20_000, 1000),
    (64, 1000, 1000, 10),
    (64, 1000, 10, 5),
    (64, 1, 100, 10),
)
QUICK = (64, 1000, 1000, 10)
REFERENCE_PAIRS = 50_000_000  # more would take the reference seconds a call
GROUPS = (1000, 100, 1000, 64, 10)  # groups, queries and codes of each, bits, k
DISTANCES = ((1000, 20_000, 64), (1000, 20_000, 256))
PACKED = ((1, 64), (10_000, 48), (100_000, 64), (10_000, 1024))


def faiss_search(queries: Tensor, codes: Tensor, k: int, bits: int) -> Callable[[], Tensor] | None:
    """The flat binary index of faiss, built beforehand, or None where faiss is not installed."""
    if importlib.util.find_spec("faiss") is None:
        return None
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexBinaryFlat(bits)
    index.add(code_bytes(codes, bits))
    rows = code_bytes(queries, bits)
    return lambda: torch.from_numpy(index.search(rows, k)[0])


def code_bytes(codes: Tensor, bits: int) -> Any:
    """The rows of whole bytes that faiss takes."""
    return codes.view(torch.uint8)[:, : bits // 8].contiguous().numpy()


def check_topk(ours: tuple[Tensor, Tensor], theirs: Any) -> None:
    """The reference must equal ours; faiss, the distances."""
    same(ours if isinstance(theirs, tuple) else ours[0], theirs)


def cases() -> Iterator[Case]:
    for shape in SHAPES:
        yield topk_case(*shape)
    yield groups_case(*GROUPS)
    for distances in DISTANCES:
        yield distance_case(*distances)
    for dtype in (torch.float32, torch.bool):
        for rows, bits in PACKED:
            yield pack_case(rows, bits, dtype)
    for rows, bits in PACKED:
        yield unpack_case(rows, bits)


def random_words(rows: int, bits: int) -> Tensor:
    return torch.randint(-(2**63), 2**63 - 1, (rows, -(-bits // 64)))


def groups_case(groups: int, group_queries: int, group_codes: int, bits: int, k: int) -> Case:
    """One call for all groups, against a loop over them."""
    torch.manual_seed(0)
    queries, codes = random_words(groups * group_queries, bits), random_words(groups * group_codes, bits)
    offsets = torch.arange(groups + 1) * group_queries, torch.arange(groups + 1) * group_codes

    def loop() -> tuple[Tensor, Tensor]:
        parts = zip(queries.split(group_queries), codes.split(group_codes), strict=True)
        found = [ops.hamming_topk(some, seen, k, bits=bits) for some, seen in parts]
        first = offsets[1][:-1].repeat_interleave(group_queries)[:, None]
        return torch.cat([distances for distances, _ in found]), torch.cat([indices for _, indices in found]) + first

    return Case(
        op="hamming_topk",
        case=f"{groups} groups of {group_queries} x {group_codes}, {bits} bits, k {k}",
        dtype="int64",
        ours=lambda: ops.hamming_topk(queries, codes, k, bits=bits, groups=offsets),
        peers={"loop": loop, "reference": lambda: reference.hamming_topk(queries, codes, k, bits=bits, groups=offsets)},
        check=same,
        work=float(groups * group_queries * group_codes),
        unit="pairs/s",
    )


def distance_case(num_queries: int, num_codes: int, bits: int) -> Case:
    torch.manual_seed(0)
    queries, codes = random_words(num_queries, bits), random_words(num_codes, bits)
    return Case(
        op="hamming_distance",
        case=f"{num_queries} x {num_codes}, {bits} bits",
        dtype="int64",
        ours=lambda: ops.hamming_distance(queries, codes, bits=bits),
        peers={"reference": lambda: reference.hamming_distance(queries, codes, bits=bits)},
        check=same,
        work=float(num_queries * num_codes),
        unit="pairs/s",
        least_bytes=4 * num_queries * num_codes,
    )


def topk_case(bits: int, num_queries: int, num_codes: int, k: int) -> Case:
    torch.manual_seed(0)
    queries, codes = random_words(num_queries, bits), random_words(num_codes, bits)
    peers: dict[str, Callable[[], Any] | None] = {"faiss": faiss_search(queries, codes, k, bits)}
    if num_queries * num_codes <= REFERENCE_PAIRS:
        peers["reference"] = lambda: reference.hamming_topk(queries, codes, k, bits=bits)
    return Case(
        op="hamming_topk",
        case=f"{num_queries} x {num_codes}, {bits} bits, k {k}",
        dtype="int64",
        ours=lambda: ops.hamming_topk(queries, codes, k, bits=bits),
        peers=peers,
        check=check_topk,
        work=float(num_queries * num_codes),
        unit="pairs/s",
        quick=(bits, num_queries, num_codes, k) == QUICK,
    )


def pack_case(rows: int, bits: int, dtype: torch.dtype) -> Case:
    torch.manual_seed(0)
    codes = torch.randn(rows, bits)
    codes = codes > 0 if dtype == torch.bool else codes.to(dtype)
    return Case(
        op="pack_codes",
        case=f"{rows} x {bits}",
        dtype=str(dtype).removeprefix("torch."),
        ours=lambda: ops.pack_codes(codes),
        peers={"reference": lambda: reference.pack_codes(codes)},
        check=same,
        work=float(rows * bits),
        unit="bits/s",
        least_bytes=codes.nbytes + rows * bits // 8,
    )


def unpack_case(rows: int, bits: int) -> Case:
    torch.manual_seed(0)
    packed = ops.pack_codes(torch.randn(rows, bits))
    return Case(
        op="unpack_codes",
        case=f"{rows} x {bits}",
        dtype="int64",
        ours=lambda: ops.unpack_codes(packed, bits=bits),
        peers={"reference": lambda: reference.unpack_codes(packed, bits=bits)},
        check=same,
        work=float(rows * bits),
        unit="bits/s",
        least_bytes=packed.nbytes + rows * bits,
    )
