"""Recall, precision and mean average precision of nearest-neighbour retrieval."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mdprop_ext._arguments import check_choice, check_integer
from mdprop_ext.metrics._arguments import check_device, check_embeddings, check_labels, check_pair
from mdprop_ext.metrics._average_precision import DIVISORS, average_precisions, precision_sums
from mdprop_ext.metrics._ranking import ranked

#: What ``include`` of :func:`retrieval_metrics` may ask for.
EXTRAS = ("precision", "r_precision", "map", "mrr")
# Neighbours, or values of query rows, held at a time: bounds memory to some 130 MB whatever the number of queries. Half
# as many would make whole rankings slower.
_MAX_NEIGHBOURS_HELD = 1 << 19


def retrieval_metrics(
    query: Tensor,
    query_labels: Tensor,
    reference: Tensor | None = None,
    reference_labels: Tensor | None = None,
    ref_includes_query: bool = False,
    ks: Sequence[int] = (1, 2, 4, 8),
    *,
    include: Sequence[str] = (),
    top_k: int | None = None,
    divisor: str = "reachable",
) -> dict[str, float]:
    r"""Measures how well the nearest references of each query share its label.

    References are ranked by Euclidean distance of the embeddings as given, equal distances by index; for normalised
    embeddings this is the ranking by cosine. A reference is relevant to a query if their labels are equal. With R
    relevant references for a query, and P(j) the share of relevant ones among the j nearest,

    * ``recall_at_k`` is the share of queries with a relevant reference among their k nearest;
    * ``map_at_r`` is the mean over queries of :math:`\frac{1}{R} \sum_{j=1}^{R} P(j)\, [j\text{-th is relevant}]`;
    * ``precision_at_k``, on request, is the mean of P(k);
    * ``r_precision``, on request, is the mean of P(R);
    * ``map``, on request, is the mean of :math:`\frac{1}{d} \sum_{j=1}^{K} P(j)\, [j\text{-th is relevant}]`;
    * ``mrr``, on request, is the mean of 1 / j for the first relevant reference among K, or 0 where there is none.

    K is ``top_k``, or all references. The whole ranking of every query takes much longer than its start.

    A query without any relevant reference, a *lone query*, can succeed in no way; it is left out of all means and
    counted in ``lone_queries``. Queries are searched in parts of bounded size, so the distance matrix is never held
    in memory.

    Args:
        query: Floating-point tensor ``[Q, D]``.
        query_labels: Integer tensor ``[Q]``.
        reference: Floating-point tensor ``[N, D]``; by default the queries themselves, each without itself.
        reference_labels: Integer tensor ``[N]``; given if and only if ``reference`` is.
        ref_includes_query: Whether reference ``i`` is the same item as query ``i`` for all ``i < Q``. It is then
            left out for that query, by index: copies of an item count as other items, and the query may be another
            view of the item, such as its attacked image.
        ks: Cut-offs of recall and precision, each at least 1.
        include: Measures on request, of ``"precision"``, ``"r_precision"``, ``"map"`` and ``"mrr"``.
        top_k: K of ``map`` and ``mrr``, at least 1; None for the whole ranking.
        divisor: d of ``map``: ``"reachable"``, min(R, K); ``"found"``, the number of relevant references among the K
            nearest, or 1; ``"relevant"``, R. They differ only where K cuts the ranking.

    Returns:
        ``recall_at_k`` for each k, ``map_at_r``, then what was requested, in the order above (``map_at_K`` and
        ``mrr_at_K`` if ``top_k`` is given), and the number ``lone_queries``.

    Raises:
        TypeError: If embeddings are not floating-point or differ in dtype, labels are not integers, ``ks`` or
            ``include`` is no sequence, or a number in ``ks`` or ``top_k`` not an int.
        ValueError: If shapes or devices disagree, a value is not finite, ``ks`` is empty or holds a number below 1,
            ``top_k`` is below 1, ``include`` or ``divisor`` is unknown, or all queries are lone.

    Example:
        >>> embeddings = torch.tensor([[0.0], [0.1], [1.0], [1.1]])
        >>> retrieval_metrics(embeddings, torch.tensor([0, 0, 1, 1]), ks=(1,))
        {'recall_at_1': 1.0, 'map_at_r': 1.0, 'lone_queries': 0.0}
        >>> retrieval_metrics(embeddings, torch.tensor([0, 1, 1, 1]), ks=(1,), include=["r_precision"])["r_precision"]
        0.8333333333333334

    Reference:
        K. Musgrave, S. Belongie, S. Lim: A Metric Learning Reality Check. ECCV 2020.
    """
    _check_options(ks, include, top_k, divisor)
    reference, reference_labels, ref_includes_query = _checked_reference(
        query, query_labels, reference, reference_labels, ref_includes_query
    )
    relevant = _relevant_counts(query_labels, reference_labels) - int(ref_includes_query)
    answerable = (relevant > 0).nonzero().squeeze(1)
    if len(answerable) == 0:
        raise ValueError("query_labels: expected a query with a relevant reference, got none")
    references = len(reference) - int(ref_includes_query)
    full = (top_k or references) if {"map", "mrr"} & set(include) else 1
    depth = min(max(*ks, full, int(relevant.max())), references)
    sums: dict[str, Tensor] = {}
    with torch.no_grad():
        for rows in torch.split(answerable, max(1, _MAX_NEIGHBOURS_HELD // max(depth, query.shape[1]))):
            nearest = ranked(query[rows], reference, depth, left_out=rows if ref_includes_query else None)
            hits = reference_labels[nearest] == query_labels[rows, None]
            del nearest  # not to be held beside those of the next rows
            for name, values in _measures(hits, relevant[rows], ks, include, top_k, divisor).items():
                sums[name] = sums.get(name, 0.0) + values.sum(dtype=torch.float64)
    means = (torch.stack(list(sums.values())) / len(answerable)).tolist()
    return {**dict(zip(sums, means, strict=True)), "lone_queries": float(len(query) - len(answerable))}


def _check_options(ks: Sequence[int], include: Sequence[str], top_k: int | None, divisor: str) -> None:
    """Raises unless all are as :func:`retrieval_metrics` says."""
    for name, values in (("ks", ks), ("include", include)):
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise TypeError(f"{name}: expected a sequence such as a tuple or a list, got {values!r}")
    if not ks:
        raise ValueError("ks: expected at least one number, got none")
    for k in ks:
        check_integer("ks", k, least=1)
    for extra in include:
        check_choice("include", extra, EXTRAS)
    check_choice("divisor", divisor, DIVISORS)
    if top_k is not None:
        check_integer("top_k", top_k, least=1)


def _checked_reference(
    query: Tensor,
    query_labels: Tensor,
    reference: Tensor | None,
    reference_labels: Tensor | None,
    ref_includes_query: bool,
) -> tuple[Tensor, Tensor, bool]:
    """Checks all items and returns reference, labels and whether it includes the queries: by default it is them."""
    if (reference is None) != (reference_labels is None):
        raise ValueError("reference_labels: expected together with reference, got one without the other")
    if reference is None:
        check_embeddings("query", query)
    else:
        check_pair(query, reference)
    check_labels("query_labels", query_labels, len(query))
    check_device("query_labels", query_labels, "query", query)
    if reference is None or reference_labels is None:
        return query, query_labels, True
    check_labels("reference_labels", reference_labels, len(reference))
    check_device("reference_labels", reference_labels, "reference", reference)
    if ref_includes_query and len(reference) < len(query):
        raise ValueError(f"reference: expected at least the {len(query)} queries, got {len(reference)} references")
    return reference, reference_labels, ref_includes_query


def _measures(
    hits: Tensor, relevant: Tensor, ks: Sequence[int], include: Sequence[str], top_k: int | None, divisor: str
) -> dict[str, Tensor]:
    """Returns every measure of each query, ``[Q]``, from hits in order of distance ``[Q, depth]``."""
    among_r = hits & (torch.arange(hits.shape[1], device=hits.device) < relevant[:, None])
    top, suffix = hits[:, :top_k], "" if top_k is None else f"_at_{top_k}"
    measures = {f"recall_at_{k}": hits[:, :k].any(1) for k in ks}
    measures["map_at_r"] = precision_sums(among_r) / relevant
    if "precision" in include:
        measures.update({f"precision_at_{k}": hits[:, :k].sum(1).double() / k for k in ks})
    if "r_precision" in include:
        measures["r_precision"] = among_r.sum(1) / relevant.double()
    if "map" in include:
        measures[f"map{suffix}"] = average_precisions(top, relevant, top_k=top_k, divisor=divisor)
    if "mrr" in include:
        measures[f"mrr{suffix}"] = top.any(1) / (top.int().argmax(1) + 1).double()
    return measures


def _relevant_counts(query_labels: Tensor, reference_labels: Tensor) -> Tensor:
    """Returns how many references share each query's label, ``[Q]``."""
    ordered = reference_labels.long().sort().values  # as int64, since a search knows no bool
    labels = query_labels.long().contiguous()
    return torch.searchsorted(ordered, labels, right=True) - torch.searchsorted(ordered, labels)
