"""Clustering by k-means: what every result must satisfy, and scikit-learn from the same start."""

from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdprop_ext.metrics import k_means

parts = sys.modules[k_means.__module__]


def cost(points: Tensor, centres: Tensor) -> float:
    return float(torch.cdist(points.double(), centres.double()).square().amin(1).sum())


@given(seed=st.integers(0, 999), count=st.integers(1, 40), share=st.floats(0, 1), grid=st.booleans())
def test_points_are_nearest_to_the_mean_of_their_cluster(seed, count, share, grid):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, 3, generator=generator)
    if grid:  # copies and ties
        points = points.round()
    clusters = 1 + round(share * (count - 1))
    assigned, centres = k_means(points, clusters, seed=seed)
    assert assigned.shape == (count,)
    assert centres.shape == (clusters, 3)
    distances = torch.cdist(points.double(), centres.double())
    chosen = distances.gather(1, assigned[:, None])[:, 0]
    torch.testing.assert_close(chosen, distances.amin(1), rtol=1e-5, atol=1e-5)
    for cluster in assigned.unique():
        torch.testing.assert_close(centres[cluster], points[assigned == cluster].mean(0), rtol=1e-5, atol=1e-5)
    distinct = len(points.unique(dim=0))
    assert len(assigned.unique()) == min(clusters, distinct)


def test_as_many_clusters_as_points_cost_nothing():
    points = torch.randn(20, 2)
    assigned, centres = k_means(points, 20)
    assert torch.equal(points, centres[assigned])


def test_separate_groups_are_found():
    truth = torch.arange(300) % 6
    points = torch.eye(6)[truth] * 20 + torch.randn(300, 6)
    assigned, _ = k_means(points, 6, seed=3)
    assert len(torch.stack([truth, assigned]).unique(dim=1).T) == 6


def test_costs_no_more_than_scikit_learn():
    cluster = pytest.importorskip("sklearn.cluster")
    points = torch.randn(400, 8)
    ours = min(cost(points, k_means(points, 10, seed=seed)[1]) for seed in range(5))
    theirs = cluster.KMeans(10, n_init=5, random_state=0).fit(points.numpy()).inertia_
    assert ours == pytest.approx(theirs, rel=0.02)


def test_first_centres_are_different_points_far_from_the_origin():
    points = torch.cartesian_prod(torch.arange(4.0), torch.arange(5.0)) + 300.1
    for seed in range(30):
        assert len(parts._spread_centres(points, 20, seed).unique(dim=0)) == 20, seed


def test_an_empty_cluster_restarts_at_the_farthest_point():
    points = torch.tensor([[0.0], [1.0], [9.0], [10.0]])
    assigned, distances = torch.tensor([0, 0, 2, 2]), torch.tensor([0.1, 0.2, 4.0, 0.3])
    means = parts._means(points, assigned, torch.zeros(3, 1), distances)
    assert means.tolist() == [[0.5], [9.0], [9.5]]


def test_the_seed_decides():
    points = torch.randn(200, 4)
    state = torch.get_rng_state()
    first, again, other = (k_means(points, 9, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_half_types_are_clustered_as_float32():
    points = torch.randn(50, 4).bfloat16()
    assigned, centres = k_means(points.requires_grad_(), 5)
    assert centres.dtype == torch.float32
    assert not centres.requires_grad
    assert torch.equal(assigned, k_means(points.float(), 5)[0])


def test_iterations_bound_the_work():
    points = torch.randn(500, 4)
    costs = [cost(points, k_means(points, 12, iterations=iterations)[1]) for iterations in (1, 3, 100)]
    assert costs[0] > costs[1] > costs[2]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"points": torch.zeros(3, 2, dtype=torch.int64)}, TypeError, "points: expected a floating-point"),
        ({"points": torch.full((3, 2), torch.nan)}, ValueError, "points: expected finite"),
        ({"clusters": 0}, ValueError, "clusters: expected at least 1"),
        ({"clusters": 4}, ValueError, "clusters: expected at most the 3 points, got 4"),
        ({"clusters": 2.0}, TypeError, "clusters: expected an int"),
        ({"iterations": 0}, ValueError, "iterations: expected at least 1"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    with pytest.raises(error, match=message):
        k_means(**{"points": torch.zeros(3, 2), "clusters": 2, **change})
