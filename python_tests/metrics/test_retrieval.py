"""Tests of recall and mean average precision."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mdprop_ext.metrics import retrieval, retrieval_metrics


def loop_metrics(
    query: Tensor, query_labels: Tensor, reference: Tensor, reference_labels: Tensor, includes: bool, ks: list[int]
) -> dict[str, float] | None:
    """The definitions, query by query; None if all queries are lone."""
    sums = dict.fromkeys([f"recall_at_{k}" for k in ks] + ["map_at_r"], 0.0)
    answered = 0
    for i in range(len(query)):
        candidates = [j for j in range(len(reference)) if not (includes and i == j)]
        distances = {j: (query[i].double() - reference[j].double()).square().sum().item() for j in candidates}
        hits = [bool(reference_labels[j] == query_labels[i]) for j in sorted(candidates, key=lambda j: distances[j])]
        relevant = sum(hits)
        if relevant == 0:
            continue
        answered += 1
        for k in ks:
            sums[f"recall_at_{k}"] += any(hits[:k])
        sums["map_at_r"] += sum(hits[j] * sum(hits[: j + 1]) / (j + 1) for j in range(relevant)) / relevant
    if answered == 0:
        return None
    return {**{name: total / answered for name, total in sums.items()}, "lone_queries": len(query) - answered}


def draw(seed: int, count: int, classes: int) -> tuple[Tensor, Tensor]:
    """Draws points on a coarse grid, so that equal distances and copies are frequent."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randint(-2, 3, (count, 2), generator=generator).float()
    return points, torch.randint(classes, (count,), generator=generator)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 9999),
    queries=st.integers(1, 12),
    references=st.integers(1, 20),
    classes=st.integers(1, 5),
    mode=st.sampled_from(["alone", "apart", "included"]),
)
def test_equals_the_definitions(seed: int, queries: int, references: int, classes: int, mode: str) -> None:
    ks = [1, 3, 50]
    query, query_labels = draw(seed, queries, classes)
    if mode == "alone":
        reference, reference_labels = query, query_labels
    else:
        reference, reference_labels = draw(seed + 1, references + queries, classes)
    if mode == "included":
        # Another view of the same items: equal labels, other embeddings.
        reference_labels = torch.cat([query_labels, reference_labels[queries:]])
    expected = loop_metrics(query, query_labels, reference, reference_labels, mode != "apart", ks)
    given_reference = () if mode == "alone" else (reference, reference_labels, mode == "included")
    if expected is None:
        with pytest.raises(ValueError, match="query_labels: expected a query with a relevant reference"):
            retrieval_metrics(query, query_labels, *given_reference, ks=ks)
    else:
        ours = retrieval_metrics(query, query_labels, *given_reference, ks=ks)
        assert ours == pytest.approx(expected, abs=1e-12)
        assert list(ours) == list(expected)


def test_worked_example() -> None:
    # Query 0 of class a, its references by distance: a b a a b, with R = 3: (1/1 + 2/3) / 3.
    reference = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])
    labels = torch.tensor([0, 1, 0, 0, 1])
    result = retrieval_metrics(torch.zeros(1, 1), torch.tensor([0]), reference, labels, ks=(1, 2))
    assert result == pytest.approx({"recall_at_1": 1, "recall_at_2": 1, "map_at_r": 5 / 9, "lone_queries": 0})
    result = retrieval_metrics(torch.zeros(1, 1), torch.tensor([1]), reference, labels, ks=(1, 2))
    assert result == pytest.approx({"recall_at_1": 0, "recall_at_2": 1, "map_at_r": 1 / 4, "lone_queries": 0})


def test_copies_are_other_items() -> None:
    # Everything at one point: the nearest other item is the first by index that is not the query.
    points = torch.zeros(4, 3)
    result = retrieval_metrics(points, torch.tensor([0, 0, 1, 1]), ks=(1, 2, 3))
    assert result["recall_at_1"] == 0.5
    assert result["recall_at_2"] == 0.5
    assert result["recall_at_3"] == 1.0


def test_attacked_query_never_finds_its_own_clean_image() -> None:
    gallery = torch.tensor([[0.0], [10.0], [20.0], [30.0]])
    labels = torch.tensor([0, 1, 0, 1])
    attacked = torch.tensor([[30.0], [10.0]])
    result = retrieval_metrics(attacked, labels[:2], gallery, labels, ref_includes_query=True, ks=(1, 2))
    # Query 0, next to item 3: then item 2. Query 1 on its own image, which is left out: items 0 and 2, then 3.
    assert result["recall_at_1"] == 0.0
    assert result["recall_at_2"] == 0.5


def test_lone_queries_are_left_out_and_counted() -> None:
    embeddings = torch.tensor([[0.0], [1.0], [5.0], [9.0]])
    result = retrieval_metrics(embeddings, torch.tensor([7, 7, 3, 4]), ks=(1,))
    assert result == {"recall_at_1": 1.0, "map_at_r": 1.0, "lone_queries": 2.0}


def test_chunks_of_queries_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    points, labels = draw(5, 60, 4)
    whole = retrieval_metrics(points, labels)
    monkeypatch.setattr(retrieval, "_MAX_NEIGHBOURS_HELD", 70)
    assert retrieval_metrics(points, labels) == pytest.approx(whole, abs=1e-14)


def test_equals_pytorch_metric_learning() -> None:
    calculators = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    pytest.importorskip("faiss")
    generator = torch.Generator().manual_seed(0)
    query, reference = torch.randn(30, 6, generator=generator), torch.randn(90, 6, generator=generator)
    query_labels, reference_labels = torch.arange(30) % 5, torch.arange(90) % 6
    calculator = calculators.AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r"), k="max_bin_count"
    )
    for extra in ((), (reference, reference_labels), (torch.cat([query, reference]), torch.cat([query_labels] * 4))):
        included = len(extra) == 2 and len(extra[0]) == 120
        theirs = calculator.get_accuracy(query, query_labels, *extra, ref_includes_query=included)
        ours = retrieval_metrics(query, query_labels, *extra, ref_includes_query=included)
        assert ours["recall_at_1"] == pytest.approx(theirs["precision_at_1"], abs=1e-7)
        assert ours["map_at_r"] == pytest.approx(theirs["mean_average_precision_at_r"], abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32])
def test_labels_may_be_of_any_integer_type(dtype: torch.dtype) -> None:
    points, labels = draw(1, 10, 2)
    expected = retrieval_metrics(points, labels, points + 1, labels)
    assert retrieval_metrics(points, labels.to(dtype), points + 1, labels.to(dtype)) == expected
    assert retrieval_metrics(points, labels.to(dtype), points + 1, labels) == expected


def test_inputs_that_require_grad_are_accepted() -> None:
    points, labels = draw(1, 10, 2)
    assert retrieval_metrics(points.clone().requires_grad_(), labels) == retrieval_metrics(points, labels)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["query", "reference"])
def test_values_that_are_not_finite_are_refused(name: str, value: float) -> None:
    tensors = {"query": torch.zeros(3, 2), "reference": torch.zeros(4, 2)}
    tensors[name][1, 0] = value
    labels = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match=f"{name}: expected finite values"):
        retrieval_metrics(tensors["query"], labels[:3], tensors["reference"], labels)


LABELS = torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"query": torch.zeros(3, 2, dtype=torch.int64)}, TypeError, "query: expected a floating-point"),
        ({"query": torch.zeros(3)}, ValueError, r"query: expected shape \[N, D\]"),
        ({"query_labels": torch.zeros(3)}, TypeError, "query_labels: expected an integer"),
        ({"query_labels": LABELS[:2]}, ValueError, r"query_labels: expected shape \[3\], got \[2\]"),
        ({"reference": torch.zeros(3, 2)}, ValueError, "reference_labels: expected together with reference"),
        ({"reference_labels": LABELS}, ValueError, "reference_labels: expected together with reference"),
        (
            {"reference": torch.zeros(3, 4), "reference_labels": LABELS},
            ValueError,
            r"reference: expected shape \[N, 2\], got \[3, 4\]",
        ),
        (
            {"reference": torch.zeros(2, 2), "reference_labels": LABELS[:2], "ref_includes_query": True},
            ValueError,
            "reference: expected at least the 3 queries, got 2",
        ),
        ({"ks": ()}, ValueError, "ks: expected at least one number"),
        ({"ks": (1, 0)}, ValueError, "ks: expected at least 1, got 0"),
        ({"ks": 5}, TypeError, "ks: expected a sequence .* got 5"),
        ({"ks": (1.5,)}, TypeError, "ks: expected an integer, got float"),
        ({"ks": (True,)}, TypeError, "ks: expected an integer, got bool"),
        ({"include": "map"}, TypeError, "include: expected a sequence .* got 'map'"),
        ({"query": [[0.0]]}, TypeError, "query: expected a tensor, got list"),
        ({"query_labels": [0, 0, 0]}, TypeError, "query_labels: expected a tensor, got list"),
        ({"query_labels": LABELS.to("meta")}, ValueError, "query_labels: expected the device of query, cpu, got meta"),
        (
            {"reference": torch.zeros(3, 2, dtype=torch.float64), "reference_labels": LABELS},
            TypeError,
            "reference: expected the dtype of query, torch.float32, got torch.float64",
        ),
        (
            {"reference": torch.zeros(3, 2), "reference_labels": LABELS.to("meta")},
            ValueError,
            "reference_labels: expected the device of reference",
        ),
    ],
)
def test_bad_arguments_are_named(change: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        retrieval_metrics(**{"query": torch.zeros(3, 2), "query_labels": LABELS, **change})
