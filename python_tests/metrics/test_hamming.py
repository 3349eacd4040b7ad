"""Retrieval by Hamming distance, against loops over the definitions."""

from __future__ import annotations

import itertools
from statistics import mean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mdprop_ext import metrics, ops
from mdprop_ext.metrics import _hamming_pairs, hamming_map, hamming_metrics, hamming_pr_curve

TIES = ("expected", "stable", "optimistic", "pessimistic")


def draw(seed: int, queries: int, items: int, bits: int, *, labels: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bool codes and labels of queries and database: class numbers below 3, or flags of so many labels."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.rand(queries + items, bits, generator=generator) < 0.5
    if labels:
        named = (torch.rand(queries + items, labels, generator=generator) < 0.3).int()
    else:
        named = torch.randint(3, (queries + items,), generator=generator)
    return codes[:queries], named[:queries], codes[queries:], named[queries:]


def sorted_hits(query: Tensor, label: Tensor, codes: Tensor, labels: Tensor, own: int | None, sign: int) -> list[bool]:
    """Hits by distance; within a distance by index (sign 0), relevant first (-1) or last (1)."""
    rows = []
    for index in range(len(codes)):
        hit = bool((label & labels[index]).any()) if labels.ndim == 2 else bool(label == labels[index])
        if index != own:
            rows.append((int((query != codes[index]).sum()), sign * hit, index, hit))
    return [row[3] for row in sorted(rows)]


def loop_map(arguments, *, included: bool, top_k: int | None, divisor: str, sign: int) -> float | None:
    """The definition, query by query, without the lone ones; None if all are."""
    values = []
    for index, (query, label) in enumerate(zip(*arguments[:2], strict=True)):
        hits = sorted_hits(query, label, *arguments[2:], index if included else None, sign)
        if any(hits):
            top = hits[:top_k]
            total = sum(sum(top[: place + 1]) / (place + 1) for place in range(len(top)) if top[place])
            cut = len(hits) if top_k is None else top_k
            values.append(total / max(1, {"reachable": min(sum(hits), cut), "found": sum(top)}[divisor]))
    return mean(values) if values else None


@settings(max_examples=40)
@given(
    seed=st.integers(0, 9999),
    queries=st.integers(1, 6),
    items=st.integers(0, 12),
    bits=st.sampled_from([1, 3, 12, 65]),
    flags=st.sampled_from([0, 4]),
    mode=st.sampled_from(["alone", "apart", "included"]),
    top_k=st.none() | st.integers(1, 20),
    divisor=st.sampled_from(["reachable", "found"]),
)
def test_equals_the_definition(seed, queries, items, bits, flags, mode, top_k, divisor):
    query, query_labels, codes, labels = draw(seed, queries, items, bits, labels=flags)
    if mode == "included":
        codes, labels = torch.cat([~query, codes]), torch.cat([query_labels, labels])
    if mode == "alone" or len(codes) == 0:
        mode, given_database, (codes, labels) = "alone", (), (query, query_labels)
    else:
        given_database = (codes, labels, mode == "included")
    options = {"top_k": top_k, "divisor": divisor}
    for ties, sign in (("stable", 0), ("optimistic", -1), ("pessimistic", 1)):
        expected = loop_map((query, query_labels, codes, labels), included=mode != "apart", sign=sign, **options)
        if expected is None:
            with pytest.raises(ValueError, match="query_labels: expected a query with a relevant item"):
                hamming_map(query, query_labels, *given_database, ties=ties, **options)
        else:
            ours = hamming_map(query, query_labels, *given_database, ties=ties, **options)
            assert ours == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("divisor", ["reachable", "found"])
def test_expected_is_the_mean_of_stable_over_all_orders_of_the_database(top_k, divisor):
    query, query_labels = torch.tensor([[1, 1, 1]]), torch.tensor([1])
    # At distance 0 one of two is relevant, at 1 two of three, at 3 the only one.
    codes = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [0, 0, 0]])
    labels = torch.tensor([0, 1, 1, 0, 1, 1])
    by_order = [
        hamming_map(
            query, query_labels, codes[list(order)], labels[list(order)], top_k=top_k, divisor=divisor, ties="stable"
        )
        for order in itertools.permutations(range(6))
    ]
    values = {
        ties: hamming_map(query, query_labels, codes, labels, top_k=top_k, divisor=divisor, ties=ties) for ties in TIES
    }
    assert max(by_order) > min(by_order)
    assert values["expected"] == pytest.approx(mean(by_order), abs=1e-12)
    if divisor == "reachable":
        assert values["optimistic"] == pytest.approx(max(by_order), abs=1e-12)
        assert values["pessimistic"] == pytest.approx(min(by_order), abs=1e-12)


def test_expected_does_not_depend_on_the_order_of_the_database():
    query, query_labels, codes, labels = draw(3, 20, 200, 8)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    for ties in ("expected", "optimistic", "pessimistic"):
        values = [
            hamming_map(query, query_labels, *database, ties=ties)
            for database in ((codes, labels), (codes[order], labels[order]))
        ]
        assert values[0] == values[1]


def test_equals_scikit_learn_where_there_are_no_ties():
    scores = pytest.importorskip("sklearn.metrics")
    # Code i has i ones: every distance from the query of zeros is another one.
    codes = torch.ones(40, 40).tril().roll(5, 0)
    labels = (torch.rand(40, generator=torch.Generator().manual_seed(1)) < 0.3).long()
    expected = scores.average_precision_score(labels == 1, -codes.sum(1))
    for ties in TIES:
        ours = hamming_map(torch.zeros(1, 40), torch.tensor([1]), codes, labels, ties=ties)
        assert ours == pytest.approx(expected, abs=1e-12)


def test_precision_and_recall_within_each_radius():
    query, query_labels, codes, labels = draw(11, 9, 60, 10)
    labels[labels == 2] = 1  # so that queries of class 2 are lone
    distances = (query[:, None] != codes).sum(2)
    relevant = query_labels[:, None] == labels
    answered = relevant.any(1)
    curve = hamming_pr_curve(query, query_labels, codes, labels)
    assert curve.precision.shape == curve.recall.shape == (11,)
    for radius in range(11):
        within = distances <= radius
        precision = [float((within[i] & relevant[i]).sum() / max(1, within[i].sum())) for i in answered.nonzero()[:, 0]]
        recall = [float((within[i] & relevant[i]).sum() / relevant[i].sum()) for i in answered.nonzero()[:, 0]]
        assert float(curve.precision[radius]) == pytest.approx(mean(precision), abs=1e-6)
        assert float(curve.recall[radius]) == pytest.approx(mean(recall), abs=1e-6)
        measured = hamming_metrics(query, query_labels, codes, labels, radius=radius)
        assert measured[f"precision_in_radius_{radius}"] == pytest.approx(float(curve.precision[radius]), abs=1e-12)
        assert measured["lone_queries"] == float((~answered).sum()) > 0
    assert curve.recall[-1] == 1.0
    precision, recall = (f"{float(values[0]):.4g} to {float(values[10]):.4g}" for values in curve)
    assert repr(curve) == f"PrecisionRecallCurve(radius 0 to 10, precision {precision}, recall {recall})"


def test_forms_of_codes_and_labels_are_the_same():
    query, query_labels, codes, labels = draw(5, 8, 50, 70)
    expected = hamming_metrics(query, query_labels, codes, labels, top_k=9)
    assert list(expected) == ["map_at_9", "precision_in_radius_2", "lone_queries"]
    signs, packed = [codes.float() * 2 - 1 for codes in (query, codes)], [ops.pack_codes(c) for c in (query, codes)]
    one_hot = [torch.nn.functional.one_hot(names, 3) for names in (query_labels, labels)]
    assert hamming_metrics(signs[0], query_labels, signs[1], labels, top_k=9) == expected
    assert hamming_metrics(signs[0].long(), query_labels, signs[1].long(), labels, top_k=9) == expected
    assert hamming_metrics(packed[0], query_labels, packed[1], labels, bits=70, top_k=9) == expected
    for dtype in (torch.bool, torch.int64, torch.float32):
        flags = [names.to(dtype) for names in one_hot]
        assert hamming_metrics(query, flags[0], codes, flags[1], top_k=9) == expected
    assert hamming_map(query, query_labels, codes, labels, top_k=9) == expected["map_at_9"]


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("held", [1, 17, 100])
def test_parts_do_not_change_the_result(monkeypatch, ties, held):
    query, query_labels, codes, labels = draw(2, 12, 30, 5, labels=4)
    database = (torch.cat([query, codes]), torch.cat([query_labels, labels]), True)
    whole = hamming_metrics(query, query_labels, *database, ties=ties)
    curve = hamming_pr_curve(query, query_labels, *database)
    monkeypatch.setattr(_hamming_pairs, "_MAX_PAIRS_HELD", held)
    assert hamming_metrics(query, query_labels, *database, ties=ties) == pytest.approx(whole, abs=1e-14)
    for ours, theirs in zip(hamming_pr_curve(query, query_labels, *database), curve, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)


def test_every_device_counts_the_same(device):
    arguments = draw(8, 20, 300, 16, labels=4)
    for ties in TIES:
        on_device = hamming_metrics(*(argument.to(device) for argument in arguments), ties=ties, top_k=50)
        assert on_device == pytest.approx(hamming_metrics(*arguments, ties=ties, top_k=50), abs=1e-14)


def test_an_item_without_labels_is_relevant_to_none():
    codes, flags = torch.ones(3, 4), torch.tensor([[0, 0], [1, 0], [1, 1]])
    measured = hamming_metrics(codes, flags)
    assert measured["lone_queries"] == 1
    assert measured["map"] == pytest.approx(0.75)  # one relevant item of two tied ones: 1 or 1/2


CODES, LABELS = torch.ones(3, 4), torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"query_codes": torch.full((3, 1), 5)}, TypeError, "bits: expected the length of the packed query_codes"),
        ({"bits": 4}, TypeError, "query_codes: expected int64 words"),
        ({"query_codes": LABELS[:, None], "bits": 65}, ValueError, r"query_codes: expected shape \[N, 2\]"),
        ({"query_codes": torch.ones(0, 4)}, ValueError, r"query_codes: expected shape \[N, K\] with N and K"),
        ({"query_codes": torch.ones(3)}, ValueError, r"query_codes: expected shape \[N, K\] .* got \[3\]"),
        ({"query_codes": [[1, 0]]}, TypeError, "query_codes: expected a tensor, got list"),
        ({"query_codes": torch.tensor([[1, torch.nan]] * 3)}, ValueError, "query_codes: expected numbers, got NaN"),
        ({"query_labels": [0, 0, 0]}, TypeError, "query_labels: expected a tensor, got list"),
        ({"query_labels": LABELS.to("meta")}, ValueError, "query_labels: expected the device of query_codes"),
        ({"codes": CODES, "labels": LABELS.to("meta")}, ValueError, "labels: expected the device of codes"),
        ({"bits": 0}, ValueError, "bits: expected at least 1"),
        ({"query_labels": LABELS.float()}, TypeError, "query_labels: expected an integer"),
        ({"query_labels": LABELS[:2]}, ValueError, r"query_labels: expected shape \[3\]"),
        ({"query_labels": LABELS[:2, None]}, ValueError, r"query_labels: expected shape \[3, L\]"),
        ({"query_labels": LABELS[:, None] + 2}, ValueError, "query_labels: expected 0 and 1"),
        ({"codes": CODES}, ValueError, "labels: expected together with codes"),
        ({"codes": torch.ones(3, 5), "labels": LABELS}, ValueError, "codes: expected codes of 4 bits .* got 5"),
        ({"codes": CODES, "labels": LABELS[:, None]}, ValueError, r"labels: expected shape \['N'\] as query_labels"),
        (
            {"codes": CODES[:2], "labels": LABELS[:2], "ref_includes_query": True},
            ValueError,
            "codes: expected at least",
        ),
        ({"top_k": 0}, ValueError, "top_k: expected at least 1"),
        ({"top_k": 1.5}, TypeError, "top_k: expected an int"),
        ({"divisor": "all"}, ValueError, "divisor: expected one of reachable, found, relevant"),
        ({"ties": "random"}, ValueError, "ties: expected one of expected, stable"),
        ({"radius": -1}, ValueError, "radius: expected at least 0"),
        ({"radius": 2.0}, TypeError, "radius: expected an int"),
        ({"query_labels": torch.arange(3)}, ValueError, "query_labels: expected a query with a relevant item"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    with pytest.raises(error, match=message):
        metrics.hamming_metrics(**{"query_codes": CODES, "query_labels": LABELS, **change})
