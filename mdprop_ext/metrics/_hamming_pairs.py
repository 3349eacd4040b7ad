"""Queries and database of binary codes: distances and relevance of all pairs, a bounded part at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mdprop_ext import ops
from mdprop_ext._arguments import check_integer, check_tensor
from mdprop_ext.metrics._arguments import check_device, check_labels
from mdprop_ext.metrics._ranking import without_own

# Pairs of a query and a code held at a time: at some twenty bytes each they stay in the cache.
_MAX_PAIRS_HELD = 1 << 19


class HammingPairs:
    """The checked arguments of the measures of binary codes, see :func:`mdprop_ext.metrics.hamming_metrics`."""

    def __init__(
        self,
        query_codes: Tensor,
        query_labels: Tensor,
        codes: Tensor | None,
        labels: Tensor | None,
        ref_includes_query: bool,
        bits: int | None,
    ) -> None:
        if (codes is None) != (labels is None):
            raise ValueError("labels: expected together with codes, got one without the other")
        self.queries, self.bits = _packed("query_codes", query_codes, bits)
        self.query_labels = _checked_labels("query_labels", query_labels, len(query_codes))
        check_device("query_labels", query_labels, "query_codes", query_codes)
        if codes is None or labels is None:
            self.codes, self.labels, self.own_left_out = self.queries, self.query_labels, True
            return
        self.codes, length = _packed("codes", codes, bits)
        self.labels = _checked_labels("labels", labels, len(codes))
        check_device("codes", codes, "query_codes", query_codes)
        check_device("labels", labels, "codes", codes)
        self.own_left_out = ref_includes_query
        if length != self.bits:
            raise ValueError(f"codes: expected codes of {self.bits} bits as queries have, got {length}")
        if self.labels.shape[1:] != self.query_labels.shape[1:]:
            expected = ["N", *self.query_labels.shape[1:]]
            raise ValueError(f"labels: expected shape {expected} as query_labels have, got {list(labels.shape)}")
        if ref_includes_query and len(codes) < len(query_codes):
            raise ValueError(f"codes: expected at least the {len(query_codes)} queries, got {len(codes)} codes")

    def parts(self) -> Iterator[slice]:
        """Yields ranges of queries, few enough for all of their pairs, or for one row of them."""
        rows = max(1, _MAX_PAIRS_HELD // max(len(self.codes), 2 * self.bits + 4))
        for first in range(0, len(self.queries), rows):
            yield slice(first, min(first + rows, len(self.queries)))

    def tally(self, part: slice) -> tuple[Tensor, Tensor]:
        """Counts the codes, and the relevant ones, at each distance: int64 ``[rows, bits + 1]`` on the CPU each.

        A query's own code is not counted if it is left out.
        """
        rows, buckets = part.stop - part.start, self.bits + 2  # the last bucket holds what does not count
        tallies = torch.zeros(rows * buckets * 2, dtype=torch.int64, device=self.queries.device)
        row_starts = torch.arange(rows, dtype=torch.int32, device=self.queries.device)[:, None] * (2 * buckets)
        for first in range(0, len(self.codes), _MAX_PAIRS_HELD):
            columns = slice(first, first + _MAX_PAIRS_HELD)
            distances = ops.hamming_distance(self.queries[part], self.codes[columns], bits=self.bits)
            if self.own_left_out:
                own = torch.arange(part.start, part.stop, device=distances.device) - first
                inside = ((own >= 0) & (own < distances.shape[1])).nonzero()[:, 0]
                distances[inside, own[inside]] = self.bits + 1
            keys = distances.mul_(2).add_(row_starts).add_(self._relevance(part, columns))
            tallies += torch.bincount(keys.flatten(), minlength=len(tallies))
        irrelevant, relevant = tallies.view(rows, buckets, 2)[:, :-1].cpu().unbind(2)
        return irrelevant + relevant, relevant

    def ranked_hits(self, part: slice, depth: int) -> Tensor:
        """Tells whether the nearest codes are relevant, equal distances by index: bool ``[rows, <= depth]``."""
        depth = min(depth, len(self.codes) - int(self.own_left_out))
        indices = ops.hamming_topk(self.queries[part], self.codes, depth + int(self.own_left_out), bits=self.bits)[1]
        if self.own_left_out:
            indices = without_own(indices, torch.arange(part.start, part.stop, device=indices.device))
        return self._relevance(part, slice(None)).gather(1, indices)

    def _relevance(self, part: slice, columns: slice) -> Tensor:
        """Tells which codes are relevant: bool ``[rows, columns]``."""
        ours, theirs = self.query_labels[part], self.labels[columns]
        if ours.ndim == 1:
            return ours[:, None] == theirs
        # A count of shared labels may be rounded, but never to 0.
        return (ours @ theirs.T) > 0


def _packed(name: str, codes: Tensor, bits: int | None) -> tuple[Tensor, int]:
    """Returns codes as packed words and their length in bits."""
    check_tensor(name, codes)
    if codes.ndim != 2 or codes.numel() == 0:
        raise ValueError(f"{name}: expected shape [N, K] with N and K of at least 1, got {list(codes.shape)}")
    if bits is None:
        if codes.dtype == torch.int64 and bool((codes.abs() > 1).any()):
            raise TypeError(f"bits: expected the length of the packed {name}, got None")
        if codes.is_floating_point() and bool(codes.isnan().any()):
            raise ValueError(f"{name}: expected numbers, got NaN")
        return ops.pack_codes(codes), codes.shape[1]
    check_integer("bits", bits, least=1)
    if codes.dtype != torch.int64:
        raise TypeError(f"{name}: expected int64 words from pack_codes where bits is given, got {codes.dtype}")
    if codes.shape[1] != -(-bits // 64):
        raise ValueError(f"{name}: expected shape [N, {-(-bits // 64)}] for {bits} bits, got {list(codes.shape)}")
    return codes, bits


def _checked_labels(name: str, labels: Tensor, count: int) -> Tensor:
    """Returns class numbers ``[count]`` as they are, or flags ``[count, L]`` as float32."""
    check_tensor(name, labels)
    if labels.ndim != 2:
        check_labels(name, labels, count)
        return labels
    if len(labels) != count:
        raise ValueError(f"{name}: expected shape [{count}, L], got {list(labels.shape)}")
    if not bool(((labels == 0) | (labels == 1)).all()):
        raise ValueError(f"{name}: expected 0 and 1 in labels of shape [N, L], got other values")
    return labels.float()
