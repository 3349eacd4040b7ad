"""The contract row of knn_topk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from op_case import FLOATING, BadCall, OpCase, Sample
from oracles.knn_topk import knn_topk_oracle

from mdprop_ext import ops
from mdprop_ext.ops.knn_topk import METRICS
from mdprop_ext.reference.knn_topk import knn_topk

# Queries, points, dimension, k. CPU: at most two queries are measured directly; few queries and many points are cut
# into ranges; otherwise points pass in blocks (several in the large shape, of more than 4 MB). Query panels hold 6 or
# 12 rows and point tiles 4 to 32, so odd numbers leave tails everywhere. A k near N fills the candidate lists.
# CUDA: from 2^21 features of pairs on, tensor cores filter; from 1,024 queries on, in wider blocks.
SHAPES = {
    "direct": (2, 203, 17, 5),
    "direct_ranges": (1, 16500, 3, 4),
    "ranges": (3, 16500, 5, 3),
    "blocks": (50, 301, 64, 7),
    "nearest": (37, 260, 3, 1),
    "all_points": (5, 40, 8, 40),
    "too_few_points": (5, 9, 1, 12),
    "filter": (400, 400, 16, 10),
    "wide_filter": (1030, 260, 9, 4),
    "large": (14, 10007, 130, 10),
    "many_neighbours": (7, 5003, 6, 2048),
}
SLOW = {
    "direct_ranges": ("euclidean", "cosine"),
    "ranges": ("sqeuclidean", "dot"),
    "wide_filter": ("euclidean",),
    "large": ("sqeuclidean",),
    "many_neighbours": ("sqeuclidean", "dot"),
}

# The dimension and the sizes (queries, points) of groups: empty on either side, too few points, single rows; and one
# worth all threads.
GROUPS = {
    "groups": (7, ((5, 40), (0, 7), (3, 0), (1, 2), (0, 0), (13, 90), (1, 300))),
    "large_group": (56, ((2, 30), (25, 12011), (7, 50))),
}


def offsets(sizes: tuple[tuple[int, int], ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Query offsets and point offsets of groups of these sizes."""
    table = torch.tensor([(0, 0), *sizes]).cumsum(0)
    return table[:, 0].contiguous(), table[:, 1].contiguous()


def samples(dtype: torch.dtype) -> Iterator[Sample]:
    for name, (num_queries, num_points, dim, k) in SHAPES.items():
        # The dtype's own noise, at float64's resolution or its own: ties between rounded rows are broken by index.
        queries, points = torch.randn(num_queries, dim).to(dtype), torch.randn(num_points, dim).to(dtype)
        for metric in SLOW.get(name, METRICS):
            if name == "large" and dtype not in (torch.float32, torch.float64):
                continue
            yield Sample(f"{name}-{metric}", (queries, points, k), {"metric": metric}, f"{name}")
    for name, (dim, sizes) in GROUPS.items():
        groups = offsets(sizes)
        queries, points = (torch.randn(int(ends[-1]), dim).to(dtype) for ends in groups)
        for metric in METRICS if name == "groups" else ("euclidean",):
            yield Sample(f"{name}-{metric}", (queries, points, 6), {"metric": metric, "groups": groups}, name)
    # Small integers: distances are exact in any order, with ties everywhere.
    ties = (torch.randint(-1, 2, (20, 4)).to(dtype), torch.randint(-1, 2, (300, 4)).to(dtype), 50)
    equal = (torch.ones(4, 6, dtype=dtype), torch.ones(400, 6, dtype=dtype), 30)
    far = ((torch.randn(9, 6) + 100).to(dtype), (torch.randn(200, 6) + 100).to(dtype), 4)
    for metric in ("sqeuclidean", "euclidean", "dot"):
        yield Sample(f"ties-{metric}", ties, {"metric": metric}, "ties")
        yield Sample(f"equal-{metric}", equal, {"metric": metric}, "ties")
        yield Sample(f"far-{metric}", far, {"metric": metric}, "far")
    special = torch.randn(90, 5).to(dtype)
    special[::4, 2], special[1::4, 0], special[2::9] = torch.nan, torch.inf, 0.0
    for metric in METRICS:
        yield Sample(f"special-{metric}", (special[:12], special, 80), {"metric": metric}, "special")
        yield Sample(f"no_queries-{metric}", (special[:0], special, 3), {"metric": metric}, "empty")
        yield Sample(f"no_points-{metric}", (special, special[:0], 3), {"metric": metric}, "empty")
        yield Sample(f"no_features-{metric}", (special[:, :0], special[:, :0], 3), {"metric": metric}, "empty")
        options = {"metric": metric, "groups": offsets(())}
        yield Sample(f"no_groups-{metric}", (special[:0], special[:0], 3), options, "empty")


def raw_args(sample: Sample) -> tuple[Any, ...]:
    return (*sample.args, sample.kwargs["metric"], *(sample.kwargs.get("groups") or (None, None)))


def gradcheck_samples() -> Iterator[Sample]:
    for metric in METRICS:
        for k, groups in ((2, None), (5, None), (2, offsets(((1, 2), (0, 1), (2, 2))))):
            args = (torch.randn(3, 2, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64), k)
            yield Sample(f"gradcheck-{metric}-{k}", args, {"metric": metric, "groups": groups})


X = torch.zeros(4, 3)
OPTIONS = {"metric": "dot"}


def bad_groups(error: type[Exception], match: str, *groups: Any) -> BadCall:
    return BadCall(error, match, (X, X, 1), {"metric": "dot", "groups": groups})


ENDS = torch.tensor([0, 4])

KNN_TOPK = OpCase(
    name="knn_topk",
    function=ops.knn_topk,
    reference=knn_topk,
    oracle=knn_topk_oracle,
    samples=samples,
    raw_args=raw_args,
    dtypes=FLOATING,
    tolerance={
        torch.float32: (1.2e-7, 1e-15),
        torch.float64: (1e-13, 1e-14),
        torch.bfloat16: (1.2e-7, 1e-15),
        torch.float16: (1.2e-7, 1e-15),
    },
    reason="the order of float64 additions, seen in the last bit of float32 at most; indices must be equal",
    variants=frozenset({*SHAPES, *GROUPS, "ties", "far", "special", "empty"}),
    differentiable=(0, 1),
    gradcheck_samples=gradcheck_samples,
    errors=(
        BadCall(TypeError, "queries: expected a tensor, got list", ([1.0], X, 1), OPTIONS),
        BadCall(TypeError, "points: expected float32.*got torch.int64", (X, X.long(), 1), OPTIONS),
        BadCall(ValueError, r"queries: expected two dimensions, got \[3\]", (X[0], X, 1), OPTIONS),
        BadCall(ValueError, r"points: expected two dimensions, got \[1, 4, 3\]", (X, X[None], 1), OPTIONS),
        BadCall(
            ValueError, r"points: expected \[N, D\] with D = 3 of queries, got \[4, 2\]", (X, X[:, :2], 1), OPTIONS
        ),
        BadCall(
            TypeError,
            "points: expected the dtype of queries, torch.float32, got torch.float64",
            (X, X.double(), 1),
            OPTIONS,
        ),
        BadCall(ValueError, "points: expected the device of queries, cpu, got meta", (X, X.to("meta"), 1), OPTIONS),
        BadCall(ValueError, "k: expected at least 1 and less than 2.31 - 1, got 0", (X, X, 0), OPTIONS),
        BadCall(ValueError, "k: expected at least 1 and less than 2.31 - 1, got 11", (X, X, 2**70), OPTIONS),
        BadCall(TypeError, "k: expected an int, got float", (X, X, 1.0), OPTIONS),
        BadCall(ValueError, "metric: expected one of .*got 'l3'", (X, X, 1), {"metric": "l3"}),
        BadCall(TypeError, "groups: expected a pair .*got list", (X, X, 1), {"metric": "dot", "groups": [ENDS, ENDS]}),
        bad_groups(TypeError, "groups: expected a pair .*got tuple", ENDS, ENDS, ENDS),
        bad_groups(TypeError, "groups: point_offsets: expected a tensor, got list", ENDS, [0, 4]),
        bad_groups(TypeError, "groups: query_offsets: expected int64, got torch.int32", ENDS.int(), ENDS),
        bad_groups(ValueError, r"groups: query_offsets: expected \[G \+ 1\].*got \[1, 2\]", ENDS[None], ENDS),
        bad_groups(ValueError, r"groups: point_offsets: expected \[G \+ 1\].*got \[0\]", ENDS, ENDS[:0]),
        bad_groups(ValueError, "groups: point_offsets: expected the device.*cpu, got meta", ENDS, ENDS.to("meta")),
        bad_groups(ValueError, "groups: expected offsets of one length, got 2 and 3", ENDS, torch.tensor([0, 1, 4])),
        bad_groups(ValueError, "groups: query_offsets: expected values from 0 to 4, got 1 to 4", ENDS.clamp(1), ENDS),
        bad_groups(
            ValueError, "groups: point_offsets: expected values from 0 to 4, got 0 to 3", ENDS, ENDS.clamp(0, 3)
        ),
        bad_groups(
            ValueError,
            "groups: query_offsets: expected values that do not decrease, got 3 before 2",
            torch.tensor([0, 3, 2, 4]),
            torch.tensor([0, 1, 2, 4]),
        ),
    ),
)
