"""Retrieval by Hamming distance: mean average precision with a rule for ties, precision within a radius, curves."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mdprop_ext._arguments import check_choice, check_integer
from mdprop_ext.metrics._average_precision import DIVISORS, TIES, average_precisions, tied_average_precisions
from mdprop_ext.metrics._hamming_pairs import HammingPairs


def hamming_map(
    query_codes: Tensor,
    query_labels: Tensor,
    codes: Tensor | None = None,
    labels: Tensor | None = None,
    ref_includes_query: bool = False,
    *,
    bits: int | None = None,
    top_k: int | None = None,
    divisor: str = "reachable",
    ties: str = "expected",
) -> float:
    """Computes the mean average precision of ranking codes by Hamming distance: ``map`` of :func:`hamming_metrics`.

    Args:
        query_codes: As in :func:`hamming_metrics`, and so are all others.
        query_labels: See there.
        codes: See there.
        labels: See there.
        ref_includes_query: See there.
        bits: See there.
        top_k: See there.
        divisor: See there.
        ties: See there.

    Returns:
        The mean over all queries that are not lone, from 0 to 1.

    Raises:
        TypeError: As :func:`hamming_metrics` does.
        ValueError: As :func:`hamming_metrics` does.

    Example:
        >>> database = torch.tensor([[1, -1], [-1, 1]])  # both at distance 1: first or second, with equal chance
        >>> round(hamming_map(torch.tensor([[1, 1]]), torch.tensor([0]), database, torch.tensor([0, 1])), 6)
        0.75
    """
    measured = hamming_metrics(
        query_codes,
        query_labels,
        codes,
        labels,
        ref_includes_query,
        bits=bits,
        top_k=top_k,
        divisor=divisor,
        ties=ties,
    )
    return measured[_map_name(top_k)]


def hamming_metrics(
    query_codes: Tensor,
    query_labels: Tensor,
    codes: Tensor | None = None,
    labels: Tensor | None = None,
    ref_includes_query: bool = False,
    *,
    bits: int | None = None,
    top_k: int | None = None,
    divisor: str = "reachable",
    ties: str = "expected",
    radius: int = 2,
) -> dict[str, float]:
    r"""Measures how well the codes that are nearest by Hamming distance share a label with each query.

    A database item is relevant to a query if their class numbers are equal, or if they have a label in common. With R
    relevant items for a query, and P(j) the share of relevant ones among the j nearest,

    * ``map`` is the mean over queries of :math:`\frac{1}{d} \sum_{j=1}^{K} P(j)\, [j\text{-th is relevant}]`;
    * ``precision_in_radius_2`` is the mean over queries of the share of relevant items among those at a distance of at
      most ``radius``, 0 where there is no item.

    Short codes leave many items at one distance, and ``map`` depends on their order. ``ties="expected"`` gives its mean
    over all orders of tied items, in closed form; it is a property of the codes alone. ``"optimistic"`` and
    ``"pessimistic"`` put relevant items first or last among tied ones, which bounds what any sorting can report (with
    the divisor ``"found"``, as long as K cuts no tie); ``"stable"`` takes tied items by index, as a stable sort does,
    and depends on the order of the database.

    A query without any relevant item, a *lone query*, is left out of all means and counted in ``lone_queries``;
    multiplying a mean by the share of the others counts it as 0. Distances are counted in parts of bounded size, so
    that no matrix of all pairs is held. Counts are integers and the same on every device.

    Args:
        query_codes: Packed int64 words ``[Q, ceil(bits / 64)]`` of :func:`mdprop_ext.ops.pack_codes`; or, without
            ``bits``, codes ``[Q, K]`` of bool or numbers, of which those > 0 are 1.
        query_labels: Class numbers, integer tensor ``[Q]``; or flags 0 and 1 of L labels, ``[Q, L]`` of any dtype.
        codes: The database ``[N, ...]``, in the form of ``query_codes`` and on the same device; by default the queries
            themselves, each without itself.
        labels: ``[N]`` or ``[N, L]``; given if and only if ``codes`` is.
        ref_includes_query: Whether code ``i`` is the same item as query ``i`` for all ``i < Q``, and left out for it.
        bits: Length of packed codes; None for codes that are not packed.
        top_k: K of ``map``, at least 1; None for the whole ranking.
        divisor: d of ``map``: ``"reachable"``, min(R, K); ``"found"``, the number of relevant items among the K
            nearest, or 1; ``"relevant"``, R. They differ only where K cuts the ranking.
        ties: ``"expected"``, ``"stable"``, ``"optimistic"`` or ``"pessimistic"``.
        radius: Of the precision, at least 0; it gives the name its number.

    Returns:
        ``map`` (``map_at_K`` if ``top_k`` is given), ``precision_in_radius_2`` and the number ``lone_queries``.

    Raises:
        TypeError: If codes or labels have another dtype, packed codes come without ``bits``, or a number is not an int.
        ValueError: If shapes disagree, flags are not 0 and 1, a number is out of range, a name is unknown, or all
            queries are lone.

    Example:
        >>> codes = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 0, 0], [0, 0, 1]])
        >>> hamming_metrics(codes, torch.tensor([0, 0, 1, 1]), radius=1)
        {'map': 1.0, 'precision_in_radius_1': 1.0, 'lone_queries': 0.0}

    Reference:
        F. McSherry, M. Najork: Computing Information Retrieval Performance Measures Efficiently in the Presence of
        Tied Scores. ECIR 2008.
    """
    check_choice("divisor", divisor, DIVISORS)
    check_choice("ties", ties, TIES)
    if top_k is not None:
        check_integer("top_k", top_k, least=1)
    check_integer("radius", radius, least=0)
    pairs = HammingPairs(query_codes, query_labels, codes, labels, ref_includes_query, bits)
    answered = 0
    precision_sum = within_sum = 0.0
    for part in pairs.parts():
        counts, relevant = pairs.tally(part)
        total = relevant.sum(1)
        if ties == "stable":
            hits = pairs.ranked_hits(part, top_k or len(pairs.codes))
            precisions = average_precisions(hits, total.to(hits.device), top_k=top_k, divisor=divisor)
        else:
            precisions = tied_average_precisions(counts, relevant, top_k=top_k, divisor=divisor, ties=ties)
        answered += int((total > 0).sum())
        precision_sum += float(precisions.sum())
        within_sum += float(_shares(counts[:, : radius + 1].sum(1), relevant[:, : radius + 1].sum(1)).sum())
    _require_answer(answered)
    return {
        _map_name(top_k): precision_sum / answered,
        f"precision_in_radius_{radius}": within_sum / answered,
        "lone_queries": float(len(pairs.queries) - answered),
    }


class PrecisionRecallCurve(NamedTuple):
    """Mean precision and recall within each Hamming radius 0, 1, ..., bits: float64 ``[bits + 1]`` each."""

    precision: Tensor
    recall: Tensor

    def __repr__(self) -> str:
        ends = (f"{name} {values[0]:.4g} to {values[-1]:.4g}" for name, values in self._asdict().items())
        return f"PrecisionRecallCurve(radius 0 to {len(self.precision) - 1}, {', '.join(ends)})"


def hamming_pr_curve(
    query_codes: Tensor,
    query_labels: Tensor,
    codes: Tensor | None = None,
    labels: Tensor | None = None,
    ref_includes_query: bool = False,
    *,
    bits: int | None = None,
) -> PrecisionRecallCurve:
    """Computes precision and recall of all items within each Hamming radius.

    Both are means over the queries that are not lone; precision is 0 for a query without any item in the radius. Items
    at one distance enter together, so the order of ties has no part in it.

    Args:
        query_codes: As in :func:`hamming_metrics`, and so are all others.
        query_labels: See there.
        codes: See there.
        labels: See there.
        ref_includes_query: See there.
        bits: See there.

    Returns:
        The curve, on the CPU.

    Raises:
        TypeError: If codes or labels have another dtype, or packed codes come without ``bits``.
        ValueError: If shapes disagree, flags are not 0 and 1, or all queries are lone.

    Example:
        >>> codes = torch.tensor([[1, 1], [1, 0], [0, 0]])
        >>> hamming_pr_curve(codes, torch.tensor([0, 0, 1])).recall
        tensor([0., 1., 1.], dtype=torch.float64)
    """
    pairs = HammingPairs(query_codes, query_labels, codes, labels, ref_includes_query, bits)
    sums = torch.zeros(2, pairs.bits + 1, dtype=torch.float64)
    answered = 0
    for part in pairs.parts():
        counts, relevant = (tally.cumsum(1) for tally in pairs.tally(part))
        total = relevant[:, -1:]
        answered += int((total > 0).sum())
        sums += torch.stack([_shares(counts, relevant).sum(0), _shares(total, relevant).sum(0)])
    _require_answer(answered)
    return PrecisionRecallCurve(*(sums / answered))


def _map_name(top_k: int | None) -> str:
    return "map" if top_k is None else f"map_at_{top_k}"


def _shares(counts: Tensor, relevant: Tensor) -> Tensor:
    """Returns ``relevant / counts`` in float64, 0 where there is nothing."""
    return relevant / counts.clamp(min=1).double()


def _require_answer(answered: int) -> None:
    if answered == 0:
        raise ValueError("query_labels: expected a query with a relevant item among codes, got none")
