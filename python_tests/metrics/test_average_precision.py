"""The closed forms of average precision under ties, against all orders of the tied items."""

from __future__ import annotations

import itertools
import math
from statistics import mean

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdprop_ext.metrics._average_precision import DIVISORS, average_precisions, tied_average_precisions

Buckets = list[tuple[int, int]]  # number of items and of relevant ones at each distance


def arrangements(buckets: Buckets) -> list[list[bool]]:
    """All rankings that keep the order of the buckets; all of them are equally likely."""
    places = [
        [[place in chosen for place in range(items)] for chosen in itertools.combinations(range(items), relevant)]
        for items, relevant in buckets
    ]
    return [list(itertools.chain(*parts)) for parts in itertools.product(*places)]


def average_precision(hits: list[bool], top_k: int | None, divisor: str) -> float:
    """The definition."""
    cut = len(hits) if top_k is None else top_k
    found = [place for place, hit in enumerate(hits[:cut], start=1) if hit]
    total = sum(count / place for count, place in enumerate(found, start=1))
    divide_by = {"reachable": min(sum(hits), cut), "found": len(found), "relevant": sum(hits)}[divisor]
    return total / max(1, divide_by)


def ours(buckets: Buckets, top_k: int | None, divisor: str, ties: str) -> float:
    counts, relevant = torch.tensor(buckets, dtype=torch.int64).T[:, None]
    return float(tied_average_precisions(counts, relevant, top_k=top_k, divisor=divisor, ties=ties))


buckets_of_few = st.lists(
    st.integers(0, 5).flatmap(lambda items: st.tuples(st.just(items), st.integers(0, items))), min_size=1, max_size=4
).filter(lambda buckets: math.prod(math.comb(*bucket) for bucket in buckets) <= 2000)


@pytest.mark.parametrize("divisor", DIVISORS)
@given(buckets=buckets_of_few, top_k=st.none() | st.integers(1, 22))
def test_expected_is_the_mean_over_all_orders_and_the_others_are_its_ends(buckets, top_k, divisor):
    values = [average_precision(hits, top_k, divisor) for hits in arrangements(buckets)]
    assert ours(buckets, top_k, divisor, "expected") == pytest.approx(mean(values), abs=1e-12)
    if divisor != "found":  # to miss a late relevant item may raise the mean over those found
        assert ours(buckets, top_k, divisor, "optimistic") == pytest.approx(max(values), abs=1e-12)
        assert ours(buckets, top_k, divisor, "pessimistic") == pytest.approx(min(values), abs=1e-12)


@pytest.mark.parametrize("divisor", DIVISORS)
@given(buckets=buckets_of_few, top_k=st.none() | st.integers(1, 22))
def test_relevant_items_come_first_or_last_among_tied_ones(buckets, top_k, divisor):
    first = [hit for items, relevant in buckets for hit in [True] * relevant + [False] * (items - relevant)]
    last = [hit for items, relevant in buckets for hit in [False] * (items - relevant) + [True] * relevant]
    assert ours(buckets, top_k, divisor, "optimistic") == pytest.approx(average_precision(first, top_k, divisor))
    assert ours(buckets, top_k, divisor, "pessimistic") == pytest.approx(average_precision(last, top_k, divisor))


@pytest.mark.parametrize("ties", ["expected", "optimistic", "pessimistic"])
@pytest.mark.parametrize("divisor", DIVISORS)
@given(hits=st.lists(st.booleans(), min_size=1, max_size=30), top_k=st.none() | st.integers(1, 35))
def test_without_ties_all_rules_agree(hits, top_k, divisor, ties):
    expected = average_precision(hits, top_k, divisor)
    assert ours([(1, int(hit)) for hit in hits], top_k, divisor, ties) == pytest.approx(expected, abs=1e-12)
    row, relevant = torch.tensor([hits]), torch.tensor([sum(hits)])
    assert float(average_precisions(row, relevant, top_k=top_k, divisor=divisor)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("divisor", DIVISORS)
@pytest.mark.parametrize("top_k", [None, *range(1, 9)])
def test_expected_of_all_rankings_of_two_small_buckets(top_k, divisor):
    kinds = [(items, relevant) for items in range(5) for relevant in range(items + 1)]
    pairs = list(itertools.product(kinds, repeat=2))
    counts, relevant = torch.tensor(pairs).unbind(2)
    values = tied_average_precisions(counts, relevant, top_k=top_k, divisor=divisor, ties="expected")
    expected = [mean(average_precision(hits, top_k, divisor) for hits in arrangements(list(pair))) for pair in pairs]
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-13)


def test_a_faultless_ranking_scores_exactly_one():
    for ties in ("expected", "optimistic"):
        for buckets in ([(1, 1)], [(1, 1), (3, 3), (1, 1), (7, 0)]):
            assert ours(buckets, None, "relevant", ties) == 1.0


def test_one_bucket_of_everything():
    # Every place is relevant with chance r / n: the closed form of a random ranking.
    items, relevant = 1000, 10
    harmonic = sum(1 / place for place in range(1, items + 1))
    slope = (relevant - 1) / (items - 1)
    expected = (slope * items + (1 - slope) * harmonic) / items
    assert ours([(items, relevant)], None, "relevant", "expected") == pytest.approx(expected, rel=1e-12)


def test_large_buckets_keep_their_digits():
    # In exact fractions: 300,000 items before the bucket, 1,000 of them relevant.
    before, found, items, relevant, top_k = 300_000, 1_000, 5_000, 700, 302_000
    slope = (relevant - 1) / (items - 1)
    inside = math.fsum(
        (found + 1 + (place - 1) * slope) / (before + place) for place in range(1, top_k - before + 1)
    ) * (relevant / items)
    bucket = ours([(before, 0), (1, 1), (items, relevant)], top_k, "relevant", "expected")
    assert bucket < 1
    value = ours([(before - found, 0), (found, found), (items, relevant)], top_k, "relevant", "expected")
    run = math.fsum(count / (before - found + count) for count in range(1, found + 1))
    assert value == pytest.approx((run + inside) / (found + relevant), rel=1e-12)


def test_found_where_nothing_is_found():
    assert ours([(3, 0), (2, 2)], 3, "found", "expected") == 0.0
    assert ours([(3, 1)], 1, "found", "expected") == pytest.approx(1 / 3)
