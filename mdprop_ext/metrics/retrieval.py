"""Recall and mean average precision of nearest-neighbour retrieval."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mdprop_ext import ops
from mdprop_ext.metrics._arguments import check_embeddings, check_labels

# Neighbours held at a time: bounds memory to some 100 MB whatever the number of queries.
_MAX_NEIGHBOURS_HELD = 1 << 22


def retrieval_metrics(
    query: Tensor,
    query_labels: Tensor,
    reference: Tensor | None = None,
    reference_labels: Tensor | None = None,
    ref_includes_query: bool = False,
    ks: Sequence[int] = (1, 2, 4, 8),
) -> dict[str, float]:
    r"""Measures how well the nearest references of each query share its label.

    References are ranked by Euclidean distance of the embeddings as given, equal distances by index; for normalised
    embeddings this is the ranking by cosine. A reference is relevant to a query if their labels are equal. With R
    relevant references for a query,

    * ``recall_at_k`` is the share of queries with a relevant reference among their k nearest;
    * ``map_at_r`` is the mean over queries of :math:`\frac{1}{R} \sum_{j=1}^{R} P(j)\, [j\text{-th is relevant}]`,
      where P(j) is the share of relevant ones among the j nearest.

    A query without any relevant reference, a *lone query*, can succeed in no way; it is left out of all means and
    counted in ``lone_queries``. The distance matrix is never held in memory.

    Args:
        query: Floating-point tensor ``[Q, D]``.
        query_labels: Integer tensor ``[Q]``.
        reference: Floating-point tensor ``[N, D]``; by default the queries themselves, each without itself.
        reference_labels: Integer tensor ``[N]``; given if and only if ``reference`` is.
        ref_includes_query: Whether reference ``i`` is the same item as query ``i`` for all ``i < Q``. It is then
            left out for that query, by index: copies of an item count as other items, and the query may be another
            view of the item, such as its attacked image.
        ks: Cut-offs of recall, each at least 1.

    Returns:
        ``recall_at_k`` for each k, ``map_at_r``, and the number ``lone_queries``.

    Raises:
        TypeError: If embeddings are not floating-point or labels not integers.
        ValueError: If shapes disagree, a value is not finite, ``ks`` is empty or holds a number below 1, or all
            queries are lone.

    Example:
        >>> embeddings = torch.tensor([[0.0], [0.1], [1.0], [1.1]])
        >>> retrieval_metrics(embeddings, torch.tensor([0, 0, 1, 1]), ks=(1,))
        {'recall_at_1': 1.0, 'map_at_r': 1.0, 'lone_queries': 0.0}

    Reference:
        K. Musgrave, S. Belongie, S. Lim: A Metric Learning Reality Check. ECCV 2020.
    """
    if (reference is None) != (reference_labels is None):
        raise ValueError("reference_labels: expected together with reference, got one without the other")
    if not ks or min(ks) < 1:
        raise ValueError(f"ks: expected at least one number, each at least 1, got {tuple(ks)}")
    check_embeddings("query", query)
    check_labels("query_labels", query_labels, len(query))
    if reference is None or reference_labels is None:
        reference, reference_labels, ref_includes_query = query, query_labels, True
    check_embeddings("reference", reference)
    check_labels("reference_labels", reference_labels, len(reference))
    if reference.shape[1] != query.shape[1]:
        raise ValueError(f"reference: expected shape [N, {query.shape[1]}], got {list(reference.shape)}")
    if ref_includes_query and len(reference) < len(query):
        raise ValueError(f"reference: expected at least the {len(query)} queries, got {len(reference)} references")

    relevant = _relevant_counts(query_labels, reference_labels) - int(ref_includes_query)
    answerable = (relevant > 0).nonzero().squeeze(1)
    if len(answerable) == 0:
        raise ValueError("query_labels: expected a query with a relevant reference, got none")
    depth = min(max(*ks, int(relevant.max())), len(reference) - int(ref_includes_query))
    sums = torch.zeros(len(ks) + 1, dtype=torch.float64, device=query.device)
    with torch.no_grad():
        for rows in torch.split(answerable, max(1, _MAX_NEIGHBOURS_HELD // depth)):
            nearest = _nearest(query[rows], reference, depth, left_out=rows if ref_includes_query else None)
            hits = reference_labels[nearest] == query_labels[rows, None]
            sums += torch.stack(
                [*(hits[:, :k].any(1).sum() for k in ks), _average_precisions(hits, relevant[rows]).sum()]
            )
    means = (sums / len(answerable)).tolist()
    names = [*(f"recall_at_{k}" for k in ks), "map_at_r"]
    return {**dict(zip(names, means, strict=True)), "lone_queries": float(len(query) - len(answerable))}


def _relevant_counts(query_labels: Tensor, reference_labels: Tensor) -> Tensor:
    """Returns how many references share each query's label, ``[Q]``."""
    ordered = reference_labels.sort().values
    labels = query_labels.contiguous()
    return torch.searchsorted(ordered, labels, right=True) - torch.searchsorted(ordered, labels)


def _nearest(query: Tensor, reference: Tensor, depth: int, *, left_out: Tensor | None) -> Tensor:
    """Returns indices ``[Q, depth]`` of the nearest references, without the one at ``left_out[i]`` for query i."""
    if left_out is None:
        return ops.knn_topk(query, reference, depth, metric="sqeuclidean")[1]
    indices = ops.knn_topk(query, reference, depth + 1, metric="sqeuclidean")[1]
    kept = indices != left_out[:, None]
    # Where the item itself is not among them, the farthest makes room instead, so that every row keeps ``depth``.
    kept[:, -1] &= ~kept.all(1)
    return indices[kept].view(-1, depth)


def _average_precisions(hits: Tensor, relevant: Tensor) -> Tensor:
    """Returns the average precision at R of each query, ``[Q]``, from hits in order of distance ``[Q, depth]``."""
    ranks = torch.arange(1, hits.shape[1] + 1, device=hits.device)
    precisions = hits.cumsum(1) / ranks.double()
    counted = hits & (ranks <= relevant[:, None])
    return (precisions * counted).sum(1) / relevant
