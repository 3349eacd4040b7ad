"""Tuples of indices that name pairs or triplets of a batch, in the convention of pytorch-metric-learning."""

from __future__ import annotations

import torch
from torch import Tensor

from mdprop_ext.losses._batch import pair_masks

#: Three tensors ``[T]`` name triplets: anchors, positives, negatives. Four name pairs: anchors ``[P]`` and their
#: positives ``[P]``, anchors ``[Q]`` and their negatives ``[Q]``. Anchors are positions in the batch, the others in the
#: references.
IndicesTuple = tuple[Tensor, ...]


def all_pairs(labels: Tensor, ref_labels: Tensor | None = None) -> IndicesTuple:
    """Names all pairs of anchors and references.

    Args:
        labels: Classes ``[N]`` of the anchors.
        ref_labels: Classes ``[M]`` of the references; None means the anchors themselves, who are no own positives.

    Returns:
        Four int64 tensors: anchors and positives, anchors and negatives.

    Example:
        >>> all_pairs(torch.tensor([0, 0, 1]))[:2]
        (tensor([0, 1]), tensor([1, 0]))
    """
    positives, negatives = pair_masks(labels, ref_labels)
    return (*positives.nonzero(as_tuple=True), *negatives.nonzero(as_tuple=True))


def all_triplets(labels: Tensor, ref_labels: Tensor | None = None) -> IndicesTuple:
    """Names all triplets of an anchor, a positive and a negative.

    Args:
        labels: Classes ``[N]`` of the anchors.
        ref_labels: Classes ``[M]`` of the references; None means the anchors themselves, who are no own positives.

    Returns:
        Three int64 tensors ``[T]``: anchors, positives, negatives.

    Example:
        >>> all_triplets(torch.tensor([0, 0, 1]))
        (tensor([0, 1]), tensor([1, 0]), tensor([2, 2]))
    """
    positives, negatives = pair_masks(labels, ref_labels)
    anchors, partners = positives.nonzero(as_tuple=True)
    pair, opponents = negatives[anchors].nonzero(as_tuple=True)
    return anchors[pair], partners[pair], opponents


def as_pairs(indices_tuple: IndicesTuple) -> IndicesTuple:
    """Names the pairs that triplets consist of; leaves pairs as they are.

    Args:
        indices_tuple: Triplets or pairs.

    Returns:
        Four tensors; a pair of several triplets comes as often as they have it.

    Raises:
        ValueError: If there are neither three nor four tensors.
    """
    if _is_pairs(indices_tuple):
        return indices_tuple
    anchors, positives, negatives = indices_tuple
    return anchors, positives, anchors, negatives


def as_triplets(indices_tuple: IndicesTuple) -> IndicesTuple:
    """Names the triplets that positive and negative pairs of one anchor make; leaves triplets as they are.

    Args:
        indices_tuple: Triplets or pairs.

    Returns:
        Three tensors.

    Raises:
        ValueError: If there are neither three nor four tensors.
    """
    if not _is_pairs(indices_tuple):
        return indices_tuple
    anchors, positives, other_anchors, negatives = indices_tuple
    positive_pair, negative_pair = torch.nonzero(anchors[:, None] == other_anchors, as_tuple=True)
    return anchors[positive_pair], positives[positive_pair], negatives[negative_pair]


def _is_pairs(indices_tuple: IndicesTuple) -> bool:
    if len(indices_tuple) not in (3, 4):
        raise ValueError(f"indices_tuple: expected 3 tensors of triplets or 4 of pairs, got {len(indices_tuple)}")
    return len(indices_tuple) == 4
