from __future__ import annotations

from pathlib import Path

import torch
from own_parts import Own, Proxies
from recipe_cases import small_batch, small_splits
from torch import nn

from mdprop_ext.nn.backbones import conv4
from mdprop_ext.recipes import (
    Checkpoint,
    MDProp,
    MDPropConfig,
    Plain,
    TrainConfig,
    load_checkpoint,
    run_training,
    train,
)


def test_recipes_show_their_options_as_they_are_written() -> None:
    assert repr(MDProp()) == "MDProp(eps=16/255, attack_steps=1, mt_targets=5, loss='joint', seed=0)"
    assert repr(MDProp(MDPropConfig(eps=0.1), seed=2)).startswith("MDProp(eps=0.1, ")
    assert repr(Plain(criterion=nn.Identity())) == "Plain(criterion=Identity, seed=0)"


def test_what_comes_out_of_a_run_is_shown_in_a_line(tmp_path: Path) -> None:
    config = TrainConfig(model="own_parts:make_model", steps=1, classes_per_batch=4)
    outcome = train(Plain(), small_splits(), config)
    assert repr(outcome).startswith("TrainOutcome(Sequential, step=1, seconds=")
    result = run_training(Plain(seed=3), small_splits(), config, tmp_path)
    shown = repr(result)
    assert shown.startswith("RunResult(plain, seed=3, 1 step, R@1: clean ")
    assert "st " in shown
    assert "\n" not in shown
    assert repr(load_checkpoint(tmp_path)[1]) == "Checkpoint(plain, own_parts:make_model, 1x16x16, seed=3, step=1)"
    assert isinstance(load_checkpoint(tmp_path)[1], Checkpoint)


def test_the_state_of_a_recipe_moves_to_another_one() -> None:
    images, labels = small_batch()
    model = conv4(embedding_dim=8).eval()  # running statistics, which attacks see, stay as they are
    recipes = [Own(criterion=Proxies(4, 8)) for _ in range(2)]
    for recipe in recipes:
        recipe.prepare(model)
    for _ in range(3):
        recipes[0].step(model, (images, labels))
    recipes[1].load_state_dict(recipes[0].state_dict())
    first, second = (recipe.step(model, (images, labels)) for recipe in recipes)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_what_a_recipe_learns_is_what_its_criterion_does() -> None:
    criterion = Proxies(4, 8)
    assert list(Plain(criterion=criterion).parameters()) == [criterion.proxies]
    assert list(Plain(criterion=lambda embeddings, labels: torch.zeros(())).parameters()) == []
