"""Clusters of embeddings against classes."""

from __future__ import annotations

import pytest
import torch

from mdprop_ext.data import load_digits
from mdprop_ext.metrics import ami, clustering_metrics, k_means, nmi


def test_one_cluster_a_class():
    embeddings, labels = torch.randn(120, 5), torch.arange(120) % 7 * 3 - 4
    clusters, _ = k_means(embeddings, 7, seed=2)
    expected = {"nmi": nmi(labels, clusters), "ami": ami(labels, clusters)}
    assert clustering_metrics(embeddings, labels, seed=2) == expected
    assert expected["ami"] < 0.2 < clustering_metrics(embeddings + 9.0 * labels[:, None], labels)["ami"]


def test_other_devices(device):
    labels = torch.arange(200) % 5
    embeddings = torch.nn.functional.one_hot(labels) * 9.0 + torch.rand(200, 5)
    measured = clustering_metrics(embeddings.to(device), labels.to(device))
    assert measured == pytest.approx({"nmi": 1.0, "ami": 1.0})


def test_digits_are_clustered_as_by_the_peers():
    cluster = pytest.importorskip("sklearn.cluster")
    scores = pytest.importorskip("sklearn.metrics")
    digits = load_digits(image_size=8)
    pixels = digits.floats().flatten(1)
    ours = sum(clustering_metrics(pixels, digits.labels, seed=seed)["nmi"] for seed in range(4)) / 4
    theirs = [
        scores.normalized_mutual_info_score(
            digits.labels, cluster.KMeans(10, n_init=1, random_state=seed).fit_predict(pixels)
        )
        for seed in range(4)
    ]
    # Means over four starts, whose values spread by some 0.02.
    assert ours == pytest.approx(sum(theirs) / 4, abs=0.04)


@pytest.mark.parametrize(
    ("embeddings", "labels", "error", "message"),
    [
        (torch.zeros(3), torch.arange(3), ValueError, r"embeddings: expected shape \[N, D\]"),
        (torch.zeros(3, 2), torch.zeros(3), TypeError, "labels: expected an integer"),
        (torch.zeros(3, 2), torch.arange(2), ValueError, r"labels: expected shape \[3\]"),
    ],
)
def test_bad_arguments_are_named(embeddings, labels, error, message):
    with pytest.raises(error, match=message):
        clustering_metrics(embeddings, labels)
