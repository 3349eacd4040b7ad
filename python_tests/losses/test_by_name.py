"""Tests of losses by name."""

from __future__ import annotations

import pytest
import torch
from loss_cases import batch, value_and_gradients

from mdprop_ext import losses
from mdprop_ext.losses import LOSS_NAMES, loss_by_name


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_every_name_gives_a_loss_with_a_gradient(name: str) -> None:
    embeddings, labels = batch([0, 0, 1, 1, 2, 2, 3, 3])
    loss = loss_by_name(name, classes=4, embedding_dim=5)
    value, gradient, *others = value_and_gradients(lambda e: loss(e, labels), embeddings, loss)
    assert value > 0
    assert gradient.any()
    assert len(others) == (name in ("arcface", "proxy_anchor"))


def test_every_name_gives_the_loss_of_the_guide() -> None:
    triplet = losses.TripletMarginLoss(margin=0.2)
    expected = {
        "multi_similarity": losses.MultiSimilarityLoss(alpha=2, beta=40, base=0.5, margin=0.1),
        "triplet": triplet,
        "triplet_batch_hard": losses.MinedLoss(triplet, losses.BatchHardMiner()),
        "triplet_semihard": losses.MinedLoss(triplet, losses.TripletMarginMiner(margin=0.2, kind="semihard")),
        "contrastive": losses.ContrastiveLoss(positive_margin=0, negative_margin=1),
        "arcface": losses.ArcFaceLoss(4, 5, margin=0.5, scale=64),
        "proxy_anchor": losses.ProxyAnchorLoss(4, 5, margin=0.1, alpha=32),
    }
    assert set(expected) == set(LOSS_NAMES)
    for name, loss in expected.items():
        embeddings, labels = batch([0, 0, 1, 1, 2, 2, 3, 3])
        built = loss_by_name(name, classes=4, embedding_dim=5)
        built.load_state_dict(loss.state_dict())
        assert type(built) is type(loss)
        assert torch.equal(built(embeddings, labels), loss(embeddings, labels)), name


def test_proxies_follow_the_global_random_state() -> None:
    def proxies(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return loss_by_name("arcface", classes=4, embedding_dim=5).proxies

    assert proxies(1).shape == (4, 5)
    assert torch.equal(proxies(1), proxies(1))
    assert not torch.equal(proxies(1), proxies(2))


def test_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        ValueError, match=r"name: expected one of multi_similarity, .* got 'arc_face', did you mean 'arcface'\?"
    ):
        loss_by_name("arc_face", classes=4, embedding_dim=5)
