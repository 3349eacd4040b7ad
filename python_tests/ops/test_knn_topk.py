"""knn_topk: what the contract test does not ask."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.knn_topk import knn_topk_distances, knn_topk_oracle

from mdprop_ext import ops
from mdprop_ext.ops.knn_topk import METRICS
from mdprop_ext.reference import knn_topk as reference

DTYPES = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def gradients(queries, points, k, metric, weights):
    """Gradients of the weighted sum of distances, infinite ones left out."""
    queries, points = queries.clone().requires_grad_(), points.clone().requires_grad_()
    distances, indices = ops.knn_topk(queries, points, k, metric=metric)
    (distances * weights)[indices >= 0].sum().backward()
    return queries.grad, points.grad


def oracle_gradients(queries, points, k, metric, weights):
    queries, points = queries.double().requires_grad_(), points.double().requires_grad_()
    distances = knn_topk_distances(queries, points, metric).sort(dim=1, stable=True).values[:, :k]
    (distances * weights[:, : distances.shape[1]]).sum().backward()
    return queries.grad, points.grad


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_queries", "num_points", "dim", "k"), [(7, 30, 5, 4), (40, 9, 33, 13), (3, 500, 8, 500)])
def test_gradients_equal_the_oracle(metric, dtype, num_queries, num_points, dim, k):
    queries, points = torch.randn(num_queries, dim).to(dtype), torch.randn(num_points, dim).to(dtype)
    weights = torch.randn(num_queries, k)
    results = gradients(queries, points, k, metric, weights)
    expected = oracle_gradients(queries, points, k, metric, weights)
    for result, wanted in zip(results, expected, strict=True):
        assert result.dtype == dtype
        tolerance = DTYPES[dtype] * float(wanted.abs().max())
        torch.testing.assert_close(result.double(), wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("metric", METRICS)
def test_reference_has_the_same_gradients(metric):
    queries, points = torch.randn(11, 6), torch.randn(8, 6)
    queries[0] = points[3]
    queries[1], points[2] = 0.0, 0.0
    distances, indices = ops.knn_topk(queries, points, 10, metric=metric)
    grad = torch.randn(distances.shape)
    arguments = (grad, queries, points, distances, indices, metric)
    for result, wanted in zip(
        torch.ops.mdprop.knn_topk_backward(*arguments), reference.knn_topk_backward(*arguments), strict=True
    ):
        torch.testing.assert_close(result, wanted, rtol=1e-6, atol=1e-6)


def test_gradient_is_zero_where_the_distance_has_a_corner():
    row = torch.randn(1, 5)
    for result in gradients(row, row, 1, "euclidean", torch.ones(1, 1)):
        assert torch.equal(result, torch.zeros(1, 5))
    for queries, points in ((0 * row, row), (row, 0 * row)):
        for result in gradients(queries, points, 1, "cosine", torch.ones(1, 1)):
            assert torch.equal(result, torch.zeros(1, 5))


def test_padding_gives_no_gradient():
    queries = torch.randn(2, 3, requires_grad=True)
    distances, indices = ops.knn_topk(queries, torch.randn(1, 3), 4, metric="sqeuclidean")
    assert indices[:, 1:].eq(-1).all()
    distances[:, 1:].sum().backward()
    assert torch.equal(queries.grad, torch.zeros(2, 3))


def test_only_the_wanted_gradient_is_returned():
    queries, points = torch.randn(4, 3), torch.randn(5, 3, requires_grad=True)
    ops.knn_topk(queries, points, 2, metric="dot")[0].sum().backward()
    assert points.grad is not None
    assert queries.grad is None


@given(data=st.data())
def test_equals_the_oracle_on_small_integers(data):
    num_queries, num_points, dim, k = (data.draw(st.integers(1, high)) for high in (30, 90, 20, 100))
    seed = data.draw(st.integers(0, 10000))
    metric = data.draw(st.sampled_from(["sqeuclidean", "euclidean", "dot"]))
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(-2, 3, (num_queries + num_points, dim), generator=generator).float()
    queries, points = rows.split([num_queries, num_points])
    expected = knn_topk_oracle(queries, points, k, metric=metric)
    for search in (ops.knn_topk, reference.knn_topk):
        for result, wanted in zip(search(queries, points, k, metric=metric), expected, strict=True):
            assert torch.equal(result, wanted)


@pytest.mark.parametrize("search", [ops.knn_topk, reference.knn_topk])
def test_neighbours_closer_than_float32_can_resolve_in_a_product(search):
    """Norms of 1e6 and distances of 1e-2: the expansion |q|^2 + |x|^2 - 2 <q, x> alone would return noise."""
    queries = 1e5 + torch.randn(20, 100)
    points = queries.repeat(10, 1) + 1e-2 * torch.randn(200, 100)
    expected = knn_topk_oracle(queries, points, 12, metric="euclidean")
    distances, indices = search(queries, points, 12, metric="euclidean")
    assert torch.equal(indices, expected[1])
    torch.testing.assert_close(distances, expected[0], rtol=1.2e-7, atol=0)


def test_reference_stays_exact_when_products_are_allowed_to_be_coarse():
    queries, points = torch.randn(64, 128), torch.randn(3000, 128)
    expected = knn_topk_oracle(queries, points, 10, metric="sqeuclidean")
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        result = reference.knn_topk(queries, points, 10, metric="sqeuclidean")
    finally:
        torch.set_float32_matmul_precision(precision)
    assert torch.equal(result[1], expected[1])


@pytest.mark.parametrize("search", [ops.knn_topk, torch.ops.mdprop.knn_topk])
def test_autocast_computes_in_float32(search):
    queries, points = torch.randn(6, 4).bfloat16(), torch.randn(20, 4, requires_grad=True)
    options = {"metric": "cosine"} if search is ops.knn_topk else {}
    rest = () if search is ops.knn_topk else ("cosine",)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distances, indices = search(queries, points, 3, *rest, **options)
    expected = ops.knn_topk(queries.float(), points, 3, metric="cosine")
    assert torch.equal(distances, expected[0])
    assert torch.equal(indices, expected[1])
    distances.sum().backward()
    assert points.grad.dtype == torch.float32


def test_raw_backward_refuses_indices_outside_the_points():
    grad, rows, indices = torch.ones(1, 1), torch.randn(1, 3), torch.tensor([[5]])
    with pytest.raises((RuntimeError, IndexError)):
        torch.ops.mdprop.knn_topk_backward(grad, rows, rows, grad, indices, "dot")


@pytest.mark.parametrize("metric", ["sqeuclidean", "dot"])
@pytest.mark.parametrize("k", [1, 7, 120])
def test_faiss_finds_the_same(metric, k):
    """On whole numbers, whose distances both compute exactly; faiss may order neighbours at one distance otherwise."""
    faiss = pytest.importorskip("faiss")
    queries, points = torch.randint(-8, 9, (40, 24)).float(), torch.randint(-8, 9, (1500, 24)).float()
    index = faiss.IndexFlatL2(24) if metric == "sqeuclidean" else faiss.IndexFlatIP(24)
    index.add(points.numpy())
    found, ids = (torch.from_numpy(result) for result in index.search(queries.numpy(), k))
    distances, indices = ops.knn_topk(queries, points, k, metric=metric)
    assert torch.equal(distances, found if metric == "sqeuclidean" else -found)
    for ours, theirs, near in zip(indices, ids, distances < distances[:, -1:], strict=True):
        assert torch.equal(ours[near].sort().values, theirs[near].sort().values)
