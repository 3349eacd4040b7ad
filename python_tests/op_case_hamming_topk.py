"""The contract rows of hamming_topk, hamming_distance, pack_codes and unpack_codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from op_case import FLOATING, BadCall, OpCase, Sample
from oracles.hamming_topk import (
    hamming_distance_oracle,
    hamming_topk_oracle,
    pack_codes_oracle,
    relaxed_hamming_distance_oracle,
    unpack_codes_oracle,
)

from mdprop_ext import ops
from mdprop_ext.ops.hamming_topk import NUMBERS
from mdprop_ext.reference import hamming_topk as reference

# Every number of words and of bit groups that the kernel unrolls, its loops over any number, codes too wide for slices.
BITS = (1, 12, 33, 48, 64, 65, 96, 128, 200, 256, 259, 1000, 5000)
# Few queries are counted word by word, many by bit slices; more than 2^15 codes are cut into parts, whole queries else.
SIZES = {"few": (3, 700, 10), "many": (40, 700, 10), "few-parts": (2, 33_000, 10), "many-parts": (24, 33_000, 5)}
# Sizes of the queries and codes of each group: empty on either side, small, worth slices, worth a cut by codes.
GROUPS = {
    "ragged": ((3, 0, 40, 1, 5, 0), (700, 9, 300, 0, 2, 0)),
    "one": ((20,), (400,)),
    "parts": ((2, 30), (33_000, 50)),
}


def words(rows: int, bits: int, distinct: int | None = None) -> torch.Tensor:
    """Random words, whose bits beyond the code are random too; optionally with few different rows."""
    codes = torch.randint(-(2**63), 2**63 - 1, (rows, -(-bits // 64)))
    return codes if distinct is None else codes[torch.arange(rows) % distinct]


def offsets(sizes: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor((0, *sizes)).cumsum(0)


def topk_samples(dtype: torch.dtype) -> Iterator[Sample]:
    for name, sizes in GROUPS.items():
        for bits in (64, 130):
            args = (words(sum(sizes[0]), bits), words(sum(sizes[1]), bits, 200), 10)
            groups = (offsets(sizes[0]), offsets(sizes[1]))
            yield Sample(f"{name}-groups-{bits}", args, {"bits": bits, "groups": groups}, f"{name} groups")
    for size, (num_queries, num_codes, k) in SIZES.items():
        for bits in BITS if "parts" not in size else (64, 130):
            args = (words(num_queries, bits), words(num_codes, bits), k)
            yield Sample(f"{size}-{bits}", args, {"bits": bits}, f"{size}-{bits}")
    for num_queries in (3, 40):
        queries, codes = words(num_queries, 64, 5), words(3000, 64, 5)
        yield Sample(f"ties-{num_queries}", (queries, codes, 1200), {"bits": 64}, "ties")
        yield Sample(f"same-{num_queries}", (queries, queries[:1].expand(700, 1), 50), {"bits": 64}, "ties")
        yield Sample(f"too_few-{num_queries}", (queries, codes[:9], 12), {"bits": 64}, "too_few")
        yield Sample(f"no_codes-{num_queries}", (queries, codes[:0], 4), {"bits": 64}, "empty")
    yield Sample("many_queries", (words(700, 64), words(90, 64), 7), {"bits": 64}, "many_queries")
    yield Sample("no_queries", (words(0, 64), words(90, 64), 7), {"bits": 64}, "empty")


def pack_samples(dtype: torch.dtype) -> Iterator[Sample]:
    # 1,000 rows of 100 values are several tasks.
    for rows, bits in ((5, 1), (5, 7), (4, 64), (7, 65), (3, 200), (1000, 100), (0, 5)):
        codes = (torch.randn(rows, bits) * 2).round()
        yield Sample(f"{rows}x{bits}", (codes.to(dtype),), {}, "special" if rows == 0 else f"{bits} bits")
    if dtype.is_floating_point:
        tiny, infinity = torch.finfo(dtype).smallest_normal, float("inf")
        special = torch.tensor([[0.0, -0.0, tiny, -tiny, infinity, -infinity, float("nan")]], dtype=dtype)
        yield Sample("special", (special,), {}, "special")


def unpack_samples(dtype: torch.dtype) -> Iterator[Sample]:
    for rows, bits in ((5, 1), (5, 7), (4, 64), (7, 65), (3, 200), (1000, 100), (0, 5)):
        yield Sample(f"{rows}x{bits}", (words(rows, bits),), {"bits": bits}, f"{bits} bits")


def distance_samples(dtype: torch.dtype) -> Iterator[Sample]:
    for bits in BITS:
        yield Sample(f"9x700-{bits}", (words(9, bits), words(700, bits)), {"bits": bits}, f"{bits} bits")
    yield Sample("tiles", (words(70, 64), words(1100, 64)), {"bits": 64}, "tiles")
    for num_queries, num_codes in ((0, 5), (5, 0)):
        args = (words(num_queries, 64), words(num_codes, 64))
        yield Sample(f"{num_queries}x{num_codes}", args, {"bits": 64}, "empty")


def relaxed_samples(dtype: torch.dtype) -> Iterator[Sample]:
    for num_queries, num_codes, bits in ((9, 70, 64), (1, 1, 1), (33, 5, 130), (0, 5, 12), (5, 0, 12)):
        args = tuple((torch.rand(rows, bits) * 2 - 1).to(dtype) for rows in (num_queries, num_codes))
        yield Sample(
            f"{num_queries}x{num_codes}x{bits}", args, {}, "empty" if 0 in (num_queries, num_codes) else "pairs"
        )
    signs = torch.randn(20, 100).sign().to(dtype)
    yield Sample("signs", (signs, signs[:7]), {}, "signs")


def relaxed_gradcheck_samples() -> Iterator[Sample]:
    return (
        sample for sample in relaxed_samples(torch.float64) if sample.args[0].numel() * sample.args[1].numel() < 5000
    )


def raw_args(sample: Sample) -> tuple[Any, ...]:
    return (*sample.args, *sample.kwargs.values())


def topk_raw_args(sample: Sample) -> tuple[Any, ...]:
    return (*sample.args, sample.kwargs["bits"], *sample.kwargs.get("groups", (None, None)))


def bad_groups(error: type[Exception], match: str, groups: Any) -> BadCall:
    return BadCall(error, match, (WORDS, WORDS, 1), {"bits": 128, "groups": groups})


WORDS = torch.zeros(4, 2, dtype=torch.int64)
RELAXED = torch.zeros(4, 3)
ENDS = offsets((4,))
EXACT = "integers are exact"

HAMMING_TOPK = OpCase(
    name="hamming_topk",
    function=ops.hamming_topk,
    reference=reference.hamming_topk,
    oracle=hamming_topk_oracle,
    samples=topk_samples,
    raw_args=topk_raw_args,
    dtypes=(torch.int64,),
    tolerance={torch.int64: (0.0, 0.0)},
    reason=EXACT,
    variants=frozenset(
        {f"{size}-{bits}" for size in SIZES for bits in (BITS if "parts" not in size else (64, 130))}
        | {"ties", "too_few", "empty", "many_queries"}
        | {f"{name} groups" for name in GROUPS}
    ),
    errors=(
        BadCall(TypeError, "queries: expected a tensor, got list", ([1], WORDS, 1), {"bits": 128}),
        BadCall(TypeError, "codes: expected int64 .*got torch.float32", (WORDS, WORDS.float(), 1), {"bits": 128}),
        BadCall(ValueError, r"queries: expected \[N, 1\] for 64 bits, got \[4, 2\]", (WORDS, WORDS, 1), {"bits": 64}),
        BadCall(ValueError, r"codes: expected \[N, 2\] for 65 bits, got \[2\]", (WORDS, WORDS[0], 1), {"bits": 65}),
        BadCall(ValueError, "codes: expected the device of queries", (WORDS, WORDS.to("meta"), 1), {"bits": 128}),
        BadCall(ValueError, "k: expected at least 1.*got 0", (WORDS, WORDS, 0), {"bits": 128}),
        BadCall(TypeError, "k: expected an int, got float", (WORDS, WORDS, 1.0), {"bits": 128}),
        BadCall(ValueError, "bits: expected at least 1.*got 0", (WORDS, WORDS, 1), {"bits": 0}),
        BadCall(TypeError, "bits: expected an int, got bool", (WORDS, WORDS, 1), {"bits": True}),
        bad_groups(TypeError, "groups: expected a pair .*got Tensor", ENDS),
        bad_groups(TypeError, "groups: point_offsets: expected a tensor, got list", (ENDS, [0, 4])),
        bad_groups(TypeError, "groups: point_offsets: expected int64, got torch.int32", (ENDS, ENDS.int())),
        bad_groups(ValueError, r"groups: query_offsets: expected \[G \+ 1\].*got \[\]", (ENDS[0], ENDS)),
        bad_groups(ValueError, "groups: query_offsets: expected values from 0 to 4, got 0 to 3", (offsets((3,)), ENDS)),
        bad_groups(ValueError, "groups: point_offsets: expected values from 0 to 4, got 1 to 4", (ENDS, ENDS.clamp(1))),
        bad_groups(ValueError, "groups: query_offsets: .*do not decrease, got 5 before 4", (offsets((5, -1)),) * 2),
        bad_groups(ValueError, "groups: expected offsets of one length, got 2 and 3", (ENDS, offsets((1, 3)))),
        bad_groups(ValueError, "groups: point_offsets: expected the device.*cpu, got meta", (ENDS, ENDS.to("meta"))),
    ),
)

HAMMING_DISTANCE = OpCase(
    name="hamming_distance",
    function=ops.hamming_distance,
    reference=reference.hamming_distance,
    oracle=hamming_distance_oracle,
    samples=distance_samples,
    raw_args=raw_args,
    dtypes=(torch.int64,),
    tolerance={torch.int64: (0.0, 0.0)},
    reason=EXACT,
    variants=frozenset({f"{bits} bits" for bits in BITS} | {"tiles", "empty"}),
    errors=(
        BadCall(TypeError, "queries: expected a tensor, got list", ([1], WORDS), {"bits": 128}),
        BadCall(TypeError, "queries: expected int64 .*got torch.bool", (WORDS.bool(), WORDS), {"bits": 128}),
        BadCall(TypeError, "codes: expected int64 .*got torch.float32", (WORDS, WORDS.float()), {"bits": 128}),
        BadCall(
            ValueError, r"codes: expected \[N, 2\] for 128 bits, got \[4, 1\]", (WORDS, WORDS[:, :1]), {"bits": 128}
        ),
        BadCall(ValueError, "codes: expected the device of queries", (WORDS, WORDS.to("meta")), {"bits": 128}),
        BadCall(TypeError, "bits: expected the length of the packed codes, got None", (WORDS, WORDS)),
        BadCall(ValueError, "bits: expected at least 1.*got 0", (WORDS, WORDS), {"bits": 0}),
    ),
)

RELAXED_HAMMING_DISTANCE = OpCase(
    name="relaxed_hamming_distance",
    function=ops.hamming_distance,
    reference=reference.relaxed_hamming_distance,
    oracle=relaxed_hamming_distance_oracle,
    samples=relaxed_samples,
    raw_args=raw_args,
    dtypes=FLOATING,
    tolerance={
        torch.float64: (1e-13, 1e-12),
        **dict.fromkeys((torch.float32, torch.bfloat16, torch.float16), (1e-5, 1e-4)),
    },
    reason="sums of up to 130 products below 1, whose rounding errors of 2^-24 (2^-53) of the sum add up",
    variants=frozenset({"pairs", "empty", "signs"}),
    errors=(
        BadCall(TypeError, "codes: expected a tensor, got list", (RELAXED, [1.0])),
        BadCall(TypeError, "codes: expected float32.*got torch.int64", (RELAXED, RELAXED.long())),
        BadCall(
            TypeError,
            "codes: expected the dtype of queries, torch.float32.*got torch.float64",
            (RELAXED, RELAXED.double()),
        ),
        BadCall(ValueError, r"queries: expected \[Q, K\], got \[3\]", (RELAXED[0], RELAXED)),
        BadCall(ValueError, r"codes: expected \[N, 3\] as queries have, got \[4, 2\]", (RELAXED, RELAXED[:, :2])),
        BadCall(ValueError, "codes: expected the device of queries, cpu, got meta", (RELAXED, RELAXED.to("meta"))),
        BadCall(ValueError, "bits: expected None for relaxed codes.*got 3", (RELAXED, RELAXED), {"bits": 3}),
    ),
    differentiable=(0, 1),
    gradcheck_samples=relaxed_gradcheck_samples,
    twice_differentiable=True,
)

PACK_CODES = OpCase(
    name="pack_codes",
    function=ops.pack_codes,
    reference=reference.pack_codes,
    oracle=pack_codes_oracle,
    samples=pack_samples,
    raw_args=raw_args,
    dtypes=NUMBERS,
    tolerance=dict.fromkeys(NUMBERS, (0.0, 0.0)),
    reason=EXACT,
    variants=frozenset({"1 bits", "7 bits", "64 bits", "65 bits", "200 bits", "100 bits", "special"}),
    errors=(
        BadCall(TypeError, "codes: expected a tensor, got list", ([True],)),
        BadCall(TypeError, "codes: expected bool.*got torch.complex64", (torch.zeros(2, 2, dtype=torch.complex64),)),
        BadCall(ValueError, r"codes: expected \[N, K\] with K >= 1, got \[3\]", (torch.zeros(3),)),
        BadCall(ValueError, r"codes: expected \[N, K\] with K >= 1, got \[3, 0\]", (torch.zeros(3, 0),)),
    ),
)

UNPACK_CODES = OpCase(
    name="unpack_codes",
    function=ops.unpack_codes,
    reference=reference.unpack_codes,
    oracle=unpack_codes_oracle,
    samples=unpack_samples,
    raw_args=raw_args,
    dtypes=(torch.int64,),
    tolerance={torch.int64: (0.0, 0.0)},
    reason=EXACT,
    variants=frozenset({"1 bits", "7 bits", "64 bits", "65 bits", "200 bits", "100 bits", "5 bits"}),
    errors=(
        BadCall(TypeError, "packed: expected int64 .*got torch.bool", (WORDS.bool(),), {"bits": 128}),
        BadCall(ValueError, r"packed: expected \[N, 1\] for 9 bits, got \[4, 2\]", (WORDS,), {"bits": 9}),
        BadCall(ValueError, "bits: expected at least 1.*got -3", (WORDS,), {"bits": -3}),
    ),
)
