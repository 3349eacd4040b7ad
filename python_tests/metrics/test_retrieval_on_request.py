"""What retrieval_metrics measures on request, against loops, pytorch-metric-learning and scikit-learn."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mdprop_ext.metrics import retrieval, retrieval_metrics

EVERYTHING = ("precision", "r_precision", "map", "mrr")


def loop_metrics(
    ranked: list[list[bool]], ks: tuple[int, ...], top_k: int | None, divisor: str, suffix: str
) -> dict[str, float]:
    """The definitions, from the hits of each query that is not lone."""
    sums: dict[str, float] = {}
    for hits in ranked:
        places = [place for place, hit in enumerate(hits[:top_k], start=1) if hit]
        relevant = sum(hits)
        total = sum(count / place for count, place in enumerate(places, start=1))
        cut = len(hits) if top_k is None else top_k
        divide_by = {"reachable": min(relevant, cut), "found": max(1, len(places)), "relevant": relevant}[divisor]
        values = {f"precision_at_{k}": sum(hits[:k]) / k for k in ks}
        values["r_precision"] = sum(hits[:relevant]) / relevant
        values[f"map{suffix}"] = total / divide_by
        values[f"mrr{suffix}"] = 1 / places[0] if places else 0.0
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value / len(ranked)
    return sums


@settings(max_examples=50)
@given(
    seed=st.integers(0, 9999),
    queries=st.integers(1, 12),
    references=st.integers(1, 20),
    mode=st.sampled_from(["alone", "apart", "included"]),
    top_k=st.none() | st.integers(1, 40),
    divisor=st.sampled_from(["reachable", "found", "relevant"]),
)
def test_equal_the_definitions(seed, queries, references, mode, top_k, divisor):
    generator = torch.Generator().manual_seed(seed)
    items = torch.randint(-2, 3, (queries + references, 2), generator=generator).float()
    labels = torch.randint(3, (queries + references,), generator=generator)
    query, query_labels = items[:queries] + 0.25, labels[:queries]
    reference = {"alone": (), "apart": (items[queries:], labels[queries:]), "included": (items, labels, True)}[mode]
    gallery, gallery_labels = reference[:2] if reference else (query, query_labels)
    ranked = []
    for i in range(queries):
        others = [j for j in range(len(gallery)) if mode == "apart" or j != i]
        distances = (gallery - query[i]).double().square().sum(1)
        hits = [bool(gallery_labels[j] == query_labels[i]) for j in sorted(others, key=lambda j: float(distances[j]))]
        if any(hits):
            ranked.append(hits)
    if not ranked:
        return
    suffix = "" if top_k is None else f"_at_{top_k}"
    options = {"ks": (1, 3, 60), "top_k": top_k, "divisor": divisor}
    ours = retrieval_metrics(query, query_labels, *reference, include=EVERYTHING, **options)
    expected = loop_metrics(ranked, suffix=suffix, **options)
    standard = retrieval_metrics(query, query_labels, *reference, ks=(1, 3, 60))
    assert {name: value for name, value in ours.items() if name not in standard} == pytest.approx(expected, abs=1e-12)
    assert {name: ours[name] for name in standard} == pytest.approx(standard, abs=1e-12)
    assert list(ours)[-1] == "lone_queries"


def draw() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Embeddings without ties; query classes 5 and 6 are not in the reference, 20 is in nothing else."""
    generator = torch.Generator().manual_seed(4)
    reference_labels = torch.cat([torch.arange(119) % 5, torch.tensor([20])])
    query_labels = torch.arange(30) % 7
    shift = torch.nn.functional.one_hot(torch.cat([query_labels, reference_labels]) % 8, 8).float()
    points = torch.randn(150, 8, generator=generator) + 1.2 * shift
    return points[:30], query_labels, points[30:], reference_labels


@pytest.mark.parametrize("mode", ["alone", "apart", "included"])
@pytest.mark.parametrize("k", ["max_bin_count", None, 7])
def test_equal_pytorch_metric_learning(mode, k):
    calculators = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    pytest.importorskip("faiss")
    query, query_labels, reference, reference_labels = draw()
    database = {
        "alone": (),
        "apart": (reference, reference_labels),
        "included": (torch.cat([query, reference]), torch.cat([query_labels, reference_labels])),
    }[mode]
    names = {
        "precision_at_1": "precision_at_1",
        "r_precision": "r_precision",
        "mean_average_precision_at_r": "map_at_r",
        "mean_average_precision": "map" if k is None else f"map_at_{k}",
        "mean_reciprocal_rank": "mrr" if k is None else f"mrr_at_{k}",
    }
    if k == 7:  # r_precision and map_at_r are cut at k there, and here they never are
        del names["r_precision"], names["mean_average_precision_at_r"]
    if k == "max_bin_count":  # the largest class there decides K of the other two
        del names["mean_average_precision"], names["mean_reciprocal_rank"]
    calculator = calculators.AccuracyCalculator(include=tuple(names), k=k, device=torch.device("cpu"))
    theirs = calculator.get_accuracy(query, query_labels, *database, ref_includes_query=mode == "included")
    ours = retrieval_metrics(
        query,
        query_labels,
        *database,
        *([mode == "included"] if database else []),
        include=EVERYTHING,
        top_k=k if k == 7 else None,
        divisor="relevant",  # theirs divides by R even where fewer than R places count
    )
    assert ours["lone_queries"] == (0 if mode == "alone" else 8 if mode == "apart" else 0)
    for their_name, our_name in names.items():
        assert ours[our_name] == pytest.approx(theirs[their_name], abs=2e-7), their_name  # theirs sums in float32


def test_differs_from_pytorch_metric_learning_where_all_distances_are_equal():
    """faiss leaves the order of ties open; here the index decides, so that the value is the same everywhere."""
    labels = torch.tensor([0, 1, 1, 0])
    ours = retrieval_metrics(torch.zeros(4, 2), labels, ks=(1,), include=["map"])
    # Query 0 sees 1 1 0, 1 sees 0 1 0, 2 sees 0 1 0, 3 sees 0 1 1.
    assert ours["recall_at_1"] == 0.25
    assert ours["map"] == pytest.approx((1 / 3 + 1 / 2 + 1 / 2 + 1) / 4)


def test_map_equals_scikit_learn():
    scores = pytest.importorskip("sklearn.metrics")
    query, query_labels, reference, reference_labels = draw()
    distances = torch.cdist(query.double(), reference.double())
    answered = [i for i in range(30) if query_labels[i] < 5]
    expected = [scores.average_precision_score(reference_labels == query_labels[i], -distances[i]) for i in answered]
    ours = retrieval_metrics(query, query_labels, reference, reference_labels, include=["map"])
    assert ours["map"] == pytest.approx(sum(expected) / len(expected), abs=1e-12)


def test_chunks_of_queries_do_not_change_the_result(monkeypatch):
    query, query_labels, reference, reference_labels = draw()
    whole = retrieval_metrics(query, query_labels, reference, reference_labels, include=EVERYTHING)
    monkeypatch.setattr(retrieval, "_MAX_NEIGHBOURS_HELD", 300)
    parts = retrieval_metrics(query, query_labels, reference, reference_labels, include=EVERYTHING)
    assert parts == pytest.approx(whole, abs=1e-14)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"include": ["map", "nmi"]},
            ValueError,
            "include: expected one of precision, r_precision, map, mrr, got 'nmi'",
        ),
        ({"divisor": "all"}, ValueError, "divisor: expected one of reachable, found, relevant"),
        ({"top_k": 0}, ValueError, "top_k: expected at least 1"),
        ({"top_k": True}, TypeError, "top_k: expected an int"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    with pytest.raises(error, match=message):
        retrieval_metrics(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), **change)
