"""Recipes train with every loss of this package, and with those of pytorch-metric-learning as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from loss_cases import peer
from recipe_cases import small_batch
from torch import nn

from mdprop_ext.losses import LOSS_NAMES, CrossBatchMemory, GatheredLoss, MinedLoss, TripletMarginLoss, loss_by_name
from mdprop_ext.nn.backbones import conv4
from mdprop_ext.recipes import MDProp, MDPropConfig

CLASSES, DIMENSION = 4, 16

CRITERIA: dict[str, Callable[[], Any]] = {
    **{name: lambda name=name: loss_by_name(name, classes=CLASSES, embedding_dim=DIMENSION) for name in LOSS_NAMES},
    "memory": lambda: CrossBatchMemory(TripletMarginLoss(), 64, DIMENSION),
    "gathered": lambda: GatheredLoss(TripletMarginLoss()),
    "their proxies": lambda: peer("losses").ProxyNCALoss(CLASSES, DIMENSION),
    "their subcentres": lambda: peer("losses").SubCenterArcFaceLoss(num_classes=CLASSES, embedding_size=DIMENSION),
    "their loss and miner": lambda: MinedLoss(peer("losses").CircleLoss(), peer("miners").BatchHardMiner()),
    "our loss, their miner": lambda: MinedLoss(TripletMarginLoss(), peer("miners").TripletMarginMiner()),
}


@pytest.mark.parametrize(
    ("name", "mode"), [*((name, "joint") for name in CRITERIA), ("memory", "separate"), ("their proxies", "separate")]
)
def test_one_step_reaches_network_and_proxies(name: str, mode: str) -> None:
    criterion: nn.Module = CRITERIA[name]()
    recipe = MDProp(MDPropConfig(eps=8 / 255, loss=mode), criterion=criterion)
    model = recipe.prepare(conv4(embedding_dim=DIMENSION)).train()
    loss = recipe.step(model, small_batch(CLASSES, 2))["loss"]
    loss.backward()
    assert loss > 0
    for parameter in (*model.parameters(), *criterion.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    assert any(parameter.grad.any() for parameter in model.parameters())
    assert all(parameter.grad.any() for parameter in criterion.parameters())
