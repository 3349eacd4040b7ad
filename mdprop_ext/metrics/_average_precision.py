"""Average precision of rankings with and without ties.

The j-th place of a ranking has precision P(j), the share of relevant items among the first j. Average precision sums
P(j) over the relevant places up to K and divides by one of three numbers, see :func:`divisors`.
"""

from __future__ import annotations

import torch
from torch import Tensor

DIVISORS = ("reachable", "found", "relevant")
TIES = ("expected", "stable", "optimistic", "pessimistic")


def average_precisions(hits: Tensor, relevant: Tensor, *, top_k: int | None, divisor: str) -> Tensor:
    """Returns the average precision of rankings without ties, ``[Q]``.

    Args:
        hits: Bool ``[Q, depth]``, whether the item at each place is relevant; at least ``top_k`` places, or all.
        relevant: Number of relevant items in the whole ranking, ``[Q]``.
        top_k: The last place K that counts; None for all.
        divisor: One of :data:`DIVISORS`.
    """
    top = hits[:, :top_k]
    return precision_sums(top) / divisors(divisor, top.sum(1), relevant, top_k)


def precision_sums(hits: Tensor) -> Tensor:
    """Returns the sum of P(j) over the relevant places of each ranking ``[Q, depth]``, as float64 ``[Q]``."""
    places = torch.arange(1, hits.shape[1] + 1, device=hits.device)
    precisions = hits.cumsum(1) / places.double()
    return (precisions * hits).sum(1)


def divisors(divisor: str, found: Tensor, relevant: Tensor, top_k: int | None) -> Tensor:
    """Returns what the sum of precisions is divided by, at least 1.

    Args:
        divisor: ``"reachable"``, min(R, K), the most that K places can hold; ``"found"``, the number of relevant
            items among the first K; ``"relevant"``, R.
        found: Number of relevant items among the first K.
        relevant: R, the number of relevant items.
        top_k: K; None for the whole ranking, where all three are the same.
    """
    if divisor == "found":
        return found.clamp(min=1)
    if divisor == "reachable" and top_k is not None:
        relevant = relevant.clamp(max=top_k)
    return relevant.clamp(min=1)


def tied_average_precisions(counts: Tensor, relevant: Tensor, *, top_k: int | None, divisor: str, ties: str) -> Tensor:
    """Returns the average precision of rankings in which all items of a bucket are tied, ``[Q]``.

    Args:
        counts: Number of items in each bucket, int64 ``[Q, B]``, the nearest bucket first.
        relevant: Number of relevant ones among them, int64 ``[Q, B]``.
        top_k: The last place K that counts; None for all.
        divisor: One of :data:`DIVISORS`.
        ties: ``"optimistic"``, relevant items come first in their bucket; ``"pessimistic"``, last; or ``"expected"``,
            the mean over all orders of the items within their buckets.
    """
    before = counts.cumsum(1) - counts
    found_before = relevant.cumsum(1) - relevant
    places = counts if top_k is None else (top_k - before).clamp(min=0).minimum(counts)
    total = relevant.sum(1)
    if ties == "expected":
        sums = _expected_sums(before, found_before, counts, relevant, places)
        if divisor != "found":
            return sums.sum(1) / divisors(divisor, total, total, top_k)
        return _expected_over_found(before, found_before, counts, relevant, places, sums)
    others = 0 if ties == "optimistic" else counts - relevant
    counted = (places - others).clamp(min=0).minimum(relevant)
    sums = _run_sums(before + others, found_before, counted)
    return sums.sum(1) / divisors(divisor, counted.sum(1), total, top_k)


def _run_sums(before: Tensor, found_before: Tensor, length: Tensor) -> Tensor:
    """Sums P(j) over a run of relevant places: sum over i = 1 .. length of (found_before + i) / (before + i)."""
    return length + (found_before - before) * _harmonic_steps(before, length)


def _expected_sums(before: Tensor, found_before: Tensor, counts: Tensor, relevant: Tensor, places: Tensor) -> Tensor:
    """Expects the sum of P(j) over the relevant ones among the first places of a bucket in random order.

    With n items of which r are relevant, c relevant ones among the b items before the bucket, place i of the bucket is
    relevant with probability r / n and then has (i - 1) a relevant ones before it in the bucket on average, where
    a = (r - 1) / (n - 1). So the sum over i = 1 .. t of (c + 1 + (i - 1) a) / (b + i), times r / n, is::

        (r / n) (a t + (c + 1 - a (b + 1)) (H(b + t) - H(b))),    H(m) = 1 + 1/2 + ... + 1/m
    """
    # In a bucket of one item any slope will do; 1 makes P(j) of a faultless ranking exactly 1.
    slope = torch.where(counts == 1, 1.0, (relevant - 1) / (counts - 1).clamp(min=1).double())
    sums = slope * places + (found_before + 1 - slope * (before + 1)) * _harmonic_steps(before, places)
    return sums * relevant / counts.clamp(min=1)


def _expected_over_found(
    before: Tensor, found_before: Tensor, counts: Tensor, relevant: Tensor, places: Tensor, sums: Tensor
) -> Tensor:
    """Expects the sum of P(j) divided by the number of relevant items found.

    That number is only random where K falls inside a bucket. How many relevant items the places before the cut hold is
    hypergeometric; given their number m, all choices are equally likely, as in a bucket of those places with m
    relevant items.
    """
    whole = torch.where(places == counts, sums, 0.0).sum(1)
    found = torch.where(places == counts, relevant, 0).sum(1)
    result = whole / found.clamp(min=1)
    cut = ((places > 0) & (places < counts)).nonzero()
    if len(cut) == 0:
        return result
    rows = cut[:, 0]
    b, c, n, r, t = (values[rows, cut[:, 1], None] for values in (before, found_before, counts, relevant, places))
    m = torch.arange(int(torch.minimum(r, t).max()) + 1, device=r.device).expand(len(cut), -1)
    possible = (m <= r) & (m <= t) & (t - m <= n - r)
    chances = _log_choose(r, m) + _log_choose(n - r, t - m) - _log_choose(n, t)
    chances = torch.where(possible, chances.exp(), 0.0)
    inside = _expected_sums(b, c, t, m, t)
    result[rows] = (chances * (whole[rows, None] + inside) / (c + m).clamp(min=1)).sum(1)
    return result


def _harmonic_steps(start: Tensor, length: Tensor) -> Tensor:
    """Returns H(start + length) - H(start) in float64."""
    return torch.digamma((start + length + 1).double()) - torch.digamma((start + 1).double())


def _log_choose(items: Tensor, chosen: Tensor) -> Tensor:
    """Returns the logarithm of the binomial coefficient in float64; any finite number where there is none."""
    chosen = chosen.clamp(min=0).minimum(items)
    return (
        torch.lgamma((items + 1).double())
        - torch.lgamma((chosen + 1).double())
        - torch.lgamma((items - chosen + 1).double())
    )
