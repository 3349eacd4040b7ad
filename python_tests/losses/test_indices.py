"""Tests of the indices of pairs and triplets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_cases import peer

from mdprop_ext.losses import IndicesTuple, all_pairs, all_triplets, as_pairs, as_triplets

labels_lists = st.lists(st.integers(0, 4), min_size=1, max_size=9)


def rows(indices: IndicesTuple) -> list[list[int]]:
    """Tuples of indices, in an order that does not depend on theirs."""
    return sorted(torch.stack(list(indices), 1).tolist())


@given(labels=labels_lists, references=st.none() | labels_lists)
def test_all_pairs_and_triplets_by_definition(labels: list[int], references: list[int] | None) -> None:
    others = labels if references is None else references
    positives, negatives = [], []
    for anchor, label in enumerate(labels):
        for other, other_label in enumerate(others):
            if label != other_label:
                negatives.append([anchor, other])
            elif references is not None or anchor != other:
                positives.append([anchor, other])
    arguments = [torch.tensor(labels), None if references is None else torch.tensor(references)]
    pairs = all_pairs(*arguments)
    assert rows(pairs[:2]) == positives
    assert rows(pairs[2:]) == negatives
    triplets = rows(all_triplets(*arguments))
    assert triplets == sorted([a, p, n] for a, p in positives for b, n in negatives if a == b)


@given(labels=labels_lists)
def test_conversions(labels: list[int]) -> None:
    targets = torch.tensor(labels)
    pairs, triplets = all_pairs(targets), all_triplets(targets)
    assert as_pairs(pairs) is pairs
    assert as_triplets(triplets) is triplets
    assert rows(as_triplets(pairs)) == rows(triplets)
    anchors, positives, other_anchors, negatives = as_pairs(triplets)
    assert rows((anchors, positives, negatives)) == rows(triplets)
    assert torch.equal(anchors, other_anchors)


def test_conversions_equal_pytorch_metric_learning() -> None:
    utilities = peer("utils.loss_and_miner_utils")
    pairs = (torch.tensor([0, 0, 3]), torch.tensor([1, 2, 4]), torch.tensor([3, 0]), torch.tensor([1, 5]))
    assert rows(as_triplets(pairs)) == rows(utilities.convert_to_triplets(pairs, None))
    triplets = as_triplets(pairs)
    for ours, theirs in zip(as_pairs(triplets), utilities.convert_to_pairs(triplets, None), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("convert", [as_pairs, as_triplets])
def test_other_tuples_are_refused(convert: object) -> None:
    with pytest.raises(ValueError, match="indices_tuple: expected 3 tensors of triplets or 4 of pairs, got 5"):
        convert((torch.zeros(1),) * 5)


@pytest.mark.parametrize("function", [all_pairs, all_triplets])
def test_labels_are_tensors(function):
    with pytest.raises(TypeError, match=r"^labels: expected a tensor, got list"):
        function([0, 0, 1])
    with pytest.raises(TypeError, match="ref_labels: expected a tensor, got list"):
        function(torch.tensor([0, 0, 1]), [0, 1])
