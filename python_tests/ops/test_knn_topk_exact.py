"""knn_topk is exact to the last bit on any data, in one search and in ragged groups."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_case_knn_topk import offsets
from oracles.knn_topk import knn_topk_oracle

from mdprop_ext import ops
from mdprop_ext.ops.knn_topk import METRICS
from mdprop_ext.reference import knn_topk as reference_module
from mdprop_ext.reference.knn_topk import knn_topk as reference

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
HUGE = {torch.float32: 1e30, torch.float64: 1e200, torch.bfloat16: 1e30, torch.float16: 6e4}
TINY = {torch.float32: 1e-41, torch.float64: 1e-180, torch.bfloat16: 1e-39, torch.float16: 1e-7}


def clustered(rows: torch.Tensor, dtype: torch.dtype) -> None:
    """Five far centres, with noise of a few units in the last place."""
    centres = 100 * torch.randn(5, rows.shape[1], dtype=torch.float64)
    noise = torch.randint(-3, 4, rows.shape) * torch.finfo(dtype).eps
    rows.copy_(centres[torch.randint(5, (len(rows),))] * (1 + noise))


def duplicated(rows: torch.Tensor, dtype: torch.dtype) -> None:
    rows.copy_(rows[torch.randint(1 + len(rows) // 10, (len(rows),))])


def scaled(size: dict[torch.dtype, float]):
    def change(rows: torch.Tensor, dtype: torch.dtype) -> None:
        rows[torch.rand(len(rows)) < 0.5] *= size[dtype]

    return change


def sprinkled(value: float):
    def change(rows: torch.Tensor, dtype: torch.dtype) -> None:
        rows[torch.rand(rows.shape) < 0.1] = value

    return change


def signed_zeros(rows: torch.Tensor, dtype: torch.dtype) -> None:
    rows.copy_(torch.where(torch.rand(rows.shape) < 0.5, 0.0, -0.0))


CHANGES = {
    "gaussian": lambda rows, dtype: None,
    "clustered": clustered,
    "duplicated": duplicated,
    "huge": scaled(HUGE),
    "tiny": scaled(TINY),
    "nan": sprinkled(torch.nan),
    "inf": sprinkled(torch.inf),
    "-inf": sprinkled(-torch.inf),
    "signed zeros": signed_zeros,
}


def assert_same(result: tuple[torch.Tensor, torch.Tensor], expected: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Equal to the last bit, but for the payload of NaN."""
    assert torch.equal(result[1], expected[1])
    assert result[0].dtype == expected[0].dtype
    integer = torch.int64 if result[0].dtype == torch.float64 else torch.int32
    got, wanted = (
        distances.nan_to_num(-7.0, torch.inf, -torch.inf).view(integer) for distances in (result[0], expected[0])
    )
    assert torch.equal(got, wanted)


@given(data=st.data())
@pytest.mark.parametrize("change", CHANGES)
def test_equals_the_oracle_bit_for_bit(change, data):
    dtype, metric = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from(METRICS))
    size = st.tuples(st.integers(0, 120), st.integers(0, 120))
    groups = offsets(tuple(data.draw(st.lists(size, max_size=6)))) if data.draw(st.booleans()) else None
    num_queries, num_points = data.draw(size) if groups is None else (int(ends[-1]) for ends in groups)
    dim, k = data.draw(st.integers(0, 40)), data.draw(st.integers(1, 130))
    torch.manual_seed(data.draw(st.integers(0, 10000)))
    rows = torch.randn(num_queries + num_points, dim, dtype=torch.float64)
    CHANGES[change](rows, dtype)
    queries, points = rows.to(dtype).split([num_queries, num_points])
    result = ops.knn_topk(queries, points, k, metric=metric, groups=groups)
    assert_same(result, knn_topk_oracle(queries, points, k, metric=metric, groups=groups))


@pytest.mark.parametrize("k", [2048, 5000, 7000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_neighbours(dtype, k):
    queries, points = torch.randn(40, 3, dtype=dtype), torch.randn(6000, 3, dtype=dtype)
    assert_same(
        ops.knn_topk(queries, points, k, metric="euclidean"), knn_topk_oracle(queries, points, k, metric="euclidean")
    )


@given(data=st.data())
def test_merging_the_results_of_parts_changes_nothing(data):
    """The k nearest of all points are the k nearest of those of every part."""
    metric, k = data.draw(st.sampled_from(METRICS)), data.draw(st.integers(1, 40))
    cut = data.draw(st.integers(0, 500))
    rows = torch.randint(-2, 3, (530, 6)).float() + 1
    queries, points = rows.split([30, 500])
    expected = ops.knn_topk(queries, points, k, metric=metric)
    near, far = (ops.knn_topk(queries, part, k, metric=metric) for part in points.split([cut, 500 - cut]))
    distances, indices = (
        torch.cat([near[0], far[0]], 1),
        torch.cat([near[1], torch.where(far[1] < 0, -1, far[1] + cut)], 1),
    )
    order = distances.argsort(dim=1, stable=True)[:, :k]
    assert_same((distances.gather(1, order), indices.gather(1, order)), expected)


@pytest.mark.parametrize("search", [ops.knn_topk, reference])
def test_a_group_is_searched_as_if_alone(search):
    torch.manual_seed(1)
    groups = offsets(((4, 30), (0, 3), (6, 0), (2, 500)))
    queries, points = torch.randn(12, 5), torch.randn(533, 5)
    distances, indices = search(queries, points, 3, metric="cosine", groups=groups)
    for q, x in (((0, 4), (0, 30)), ((4, 10), (33, 33)), ((10, 12), (33, 533))):
        alone = search(queries[slice(*q)], points[slice(*x)], 3, metric="cosine")
        found = torch.where(alone[1] < 0, -1, alone[1] + x[0])
        assert_same((distances[slice(*q)], indices[slice(*q)]), (alone[0], found))


@pytest.mark.parametrize("metric", METRICS)
def test_gradients_of_groups_equal_those_of_single_searches(metric):
    groups = offsets(((4, 30), (5, 0), (2, 50)))
    queries, points = (torch.randn(n, 5, requires_grad=True) for n in (11, 80))
    weights = torch.randn(11, 3)
    distances, indices = ops.knn_topk(queries, points, 3, metric=metric, groups=groups)
    together = torch.autograd.grad((distances * weights)[indices >= 0].sum(), (queries, points))
    first = ops.knn_topk(queries[:4], points[:30], 3, metric=metric)[0]
    last = ops.knn_topk(queries[9:], points[30:], 3, metric=metric)[0]
    alone = torch.autograd.grad((first * weights[:4]).sum() + (last * weights[9:]).sum(), (queries, points))
    for result, wanted in zip(together, alone, strict=True):
        assert torch.equal(result, wanted)


def test_groups_compile_to_one_graph():
    groups = offsets(((2, 30), (0, 3), (6, 40)))
    queries, points = torch.randn(8, 4), torch.randn(73, 4)
    compiled = torch.compile(ops.knn_topk, backend="aot_eager", fullgraph=True)
    assert_same(
        compiled(queries, points, 5, metric="dot", groups=groups),
        ops.knn_topk(queries, points, 5, metric="dot", groups=groups),
    )


@pytest.mark.parametrize(
    ("query_offsets", "point_offsets"),
    [([0, 2], [0, 1, 4]), ([0, 5], [0, 4]), ([0, 3, 2, 4], [0, 1, 2, 4]), ([0, 4], [1, 4]), ([0, 4], None)],
)
def test_raw_op_refuses_offsets_outside_the_rows(query_offsets, point_offsets):
    rows = torch.randn(4, 3)
    ends = [None if values is None else torch.tensor(values) for values in (query_offsets, point_offsets)]
    with pytest.raises(RuntimeError, match="_offsets"):
        torch.ops.mdprop.knn_topk(rows, rows, 1, "dot", *ends)


@pytest.mark.parametrize("metric", METRICS)
def test_the_reference_searches_large_tables_tile_by_tile(metric, monkeypatch):
    queries, points = torch.randn(5, 8), torch.randn(300, 8)
    whole = reference(queries, points, 7, metric=metric)
    monkeypatch.setattr(reference_module, "TILE_VALUES", 5 * 40)
    for result, expected in zip(reference(queries, points, 7, metric=metric), whole, strict=True):
        assert torch.equal(result, expected)
