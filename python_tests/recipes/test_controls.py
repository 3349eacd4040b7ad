from __future__ import annotations

import pytest
import torch
from recipe_cases import RecordingLoss, small_batch
from torch import Tensor, nn

from mdprop_ext.nn import branch_names
from mdprop_ext.nn.backbones import conv4
from mdprop_ext.recipes import RECIPES, AdvPropST, MDPropNoise, MDPropNoiseConfig, MDPropShared, Plain, recipe_class
from mdprop_ext.recipes.base import Recipe


def embedded(recipe: Recipe, batch: tuple[Tensor, Tensor]) -> tuple[nn.Module, Tensor]:
    """The prepared model after a step, and the images that its training forward saw."""
    torch.manual_seed(0)
    model = recipe.prepare(conv4()).train()
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]) if module.training else None)
    recipe.step(model, batch)["loss"].backward()
    assert len(seen) == 1
    return model, seen[0]


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_trains_all_its_parameters(name: str) -> None:
    model, _ = embedded(recipe_class(name)(), small_batch(6, 3))
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_plain_sees_clean_images_only() -> None:
    images, labels = small_batch()
    model, seen = embedded(Plain(), (images, labels))
    assert torch.equal(seen, images)
    assert branch_names(model) == ()


def test_shared_has_one_batch_norm_for_as_many_images_as_mdprop() -> None:
    images, labels = small_batch()
    criterion = RecordingLoss()
    model, seen = embedded(MDPropShared(criterion=criterion), (images, labels))
    assert branch_names(model) == ()
    assert len(seen) == 2 * len(images)
    assert torch.equal(criterion.calls[0][1].bincount(), 2 * labels.bincount())


def test_advprop_attacks_every_image_once_in_two_branches() -> None:
    images, labels = small_batch()
    model, seen = embedded(AdvPropST(), (images, labels))
    assert branch_names(model) == ("main", "st")
    drift = (seen[len(images) :] - images).abs().flatten(1).amax(1)
    assert float(drift.min()) > 0
    assert float(drift.max()) <= 16 / 255 + 1e-6


def test_noise_moves_every_pixel_by_eps() -> None:
    images, labels = small_batch(4, 4)
    images = images * 0.5 + 0.25  # no pixel is cut off at 0 or 1
    model, seen = embedded(MDPropNoise(MDPropNoiseConfig(eps=0.1)), (images, labels))
    assert branch_names(model) == ("main", "st", "mt")
    noisy = seen[len(images) :]
    distances = (noisy[:, None] - images).abs().flatten(2).amax(2)
    changes = noisy - images[distances.argmin(1)]
    torch.testing.assert_close(changes.abs(), torch.full_like(changes, 0.1))
    assert 0.4 < float((changes > 0).float().mean()) < 0.6


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'mdprop_noise'"):
        recipe_class("mdprop-nois")
    with pytest.raises(ValueError, match=r"no recipe 'vgg'\. There are plain, mdprop, "):
        recipe_class("vgg")


def test_names_of_settings_do_not_collide_with_those_of_training() -> None:
    from dataclasses import fields

    from mdprop_ext.recipes import TrainConfig

    training = {field.name for field in fields(TrainConfig)}
    for recipe in RECIPES.values():
        assert training.isdisjoint(field.name for field in fields(recipe.config_class))
        assert recipe.summary
        assert recipe.paper
