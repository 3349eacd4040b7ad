"""Mutual information of partitions, against scikit-learn and against all partitions."""

from __future__ import annotations

import itertools
from statistics import mean

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdprop_ext.metrics import ami, mutual_information, nmi

names = st.lists(st.integers(-3, 3), min_size=1, max_size=40)


@given(labels=names, seed=st.integers(0, 99))
def test_equal_those_of_scikit_learn(labels, seed):
    scores = pytest.importorskip("sklearn.metrics")
    clusters = torch.randint(1 + seed % 5, (len(labels),), generator=torch.Generator().manual_seed(seed))
    ours = torch.tensor(labels)
    assert nmi(ours, clusters) == pytest.approx(scores.normalized_mutual_info_score(labels, clusters), abs=1e-13)
    assert ami(ours, clusters) == pytest.approx(scores.adjusted_mutual_info_score(labels, clusters), abs=1e-10)


@pytest.mark.parametrize(("count", "classes", "clusters"), [(3000, 700, 650), (20000, 10, 12), (500, 500, 3)])
def test_equal_those_of_scikit_learn_for_many_parts(count, classes, clusters):
    scores = pytest.importorskip("sklearn.metrics")
    labels = torch.randint(classes, (count,))
    found = torch.where(torch.rand(count) < 0.6, labels % clusters, torch.randint(clusters, (count,)))
    assert nmi(labels, found) == pytest.approx(scores.normalized_mutual_info_score(labels, found), abs=1e-12)
    assert ami(labels, found) == pytest.approx(scores.adjusted_mutual_info_score(labels, found), abs=1e-9)


@pytest.mark.parametrize(
    ("labels", "clusters"),
    [([0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 0, 2]), ([0, 0, 0, 0, 1, 1], [0, 1, 1, 1, 1, 1]), ([0, 0, 1], [1, 0, 0])],
)
def test_expected_information_is_the_mean_over_all_orders(labels, clusters):
    labels, clusters = torch.tensor(labels), torch.tensor(clusters)

    def information(found):
        return mutual_information._mutual_information(mutual_information._contingency(labels, found))

    by_order = [information(torch.tensor(order)) for order in itertools.permutations(clusters.tolist())]
    expected = mutual_information._expected_information(mutual_information._contingency(labels, clusters))
    assert expected == pytest.approx(mean(by_order), rel=1e-12)


@given(labels=names)
def test_renamed_parts_are_the_same_parts(labels):
    partition = torch.tensor(labels)
    assert nmi(partition, 7 - 2 * partition) == pytest.approx(1.0, abs=1e-14)
    assert ami(partition, 7 - 2 * partition) == pytest.approx(1.0, abs=1e-12)
    assert max(nmi(partition, -partition), ami(partition, -partition)) <= 1


@pytest.mark.parametrize("measure", [nmi, ami])
def test_one_part_tells_nothing(measure):
    one, two = torch.zeros(4, dtype=torch.int64), torch.tensor([0, 0, 1, 1])
    assert (measure(one, one), measure(one, two), measure(two, one)) == (1.0, 0.0, 0.0)
    assert measure(two, torch.tensor([0, 1, 0, 1])) <= 0.0


@pytest.mark.parametrize("measure", [nmi, ami])
@pytest.mark.parametrize(
    ("labels", "clusters", "error", "message"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), TypeError, "labels: expected an integer"),
        (torch.arange(3), torch.zeros(3), TypeError, "clusters: expected an integer"),
        (torch.arange(3), torch.arange(4), ValueError, r"clusters: expected shape \[3\], got \[4\]"),
        (torch.zeros(2, 2).long(), torch.arange(4), ValueError, r"labels: expected shape \[4\], got \[2, 2\]"),
        (torch.arange(0), torch.arange(0), ValueError, "labels: expected at least one"),
    ],
)
def test_bad_arguments_are_named(measure, labels, clusters, error, message):
    with pytest.raises(error, match=message):
        measure(labels, clusters)
