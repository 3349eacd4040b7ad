from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mdprop_ext.losses import MultiSimilarityLoss
from mdprop_ext.recipes._mixture import mixture_loss, split_in_halves


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=40))
def test_halves_hold_every_position_once_and_are_of_equal_size(labels: list[int]) -> None:
    first, second = split_in_halves(torch.tensor(labels))
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(len(labels)))
    assert 0 <= len(first) - len(second) <= 2


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(2, 9))
def test_both_halves_of_a_sampler_batch_have_several_classes(classes: int, per_class: int) -> None:
    labels = torch.arange(classes).repeat_interleave(per_class)
    for half in split_in_halves(labels):
        assert len(labels[half].unique()) >= 2


def test_a_half_keeps_pairs_of_a_class_for_the_loss() -> None:
    labels = torch.arange(8).repeat_interleave(2)
    for half in split_in_halves(labels):
        assert labels[half].bincount()[labels[half]].tolist() == [2] * 8


def test_separate_loss_is_the_mean_of_the_parts() -> None:
    torch.manual_seed(0)
    embeddings, labels = torch.randn(16, 4), torch.arange(4).repeat(4)
    criterion = MultiSimilarityLoss()
    parts = [criterion(embeddings[a:b], labels[a:b]) for a, b in ((0, 8), (8, 12), (12, 16))]
    separate = mixture_loss(criterion, embeddings, labels, [8, 4, 4], "separate")
    joint = mixture_loss(criterion, embeddings, labels, [8, 4, 4], "joint")
    torch.testing.assert_close(separate, sum(parts) / 3)
    torch.testing.assert_close(joint, criterion(embeddings, labels))
    assert abs(float(joint - separate)) > 1e-3
