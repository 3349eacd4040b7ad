from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recipe_cases import image_set
from torch import nn

from mdprop_ext.recipes import AttackSetting, RobustnessMeter, embed
from mdprop_ext.recipes.attacked_images import (
    attack_images,
    query_recall,
    spread_positions,
    to_pixels,
)


@given(eps_255=st.floats(0, 40), seed=st.integers(0, 99))
def test_pixels_stay_in_ball_and_box(eps_255, seed):
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randint(256, (2, 3, 5, 5), generator=generator).byte()
    shift = eps_255 / 255 * (2 * torch.rand(clean.shape, generator=generator) - 1)
    attacked = (clean / 255 + shift).clamp(0, 1)
    change = to_pixels(attacked, clean, eps=eps_255 / 255).double() - clean
    exact = attacked.double() * 255 - clean
    assert change.abs().max() <= eps_255 + 1e-9
    assert (change * exact >= 0).all()
    # Towards the clean image, by less than a level.
    assert (change.abs() <= exact.abs() + 1e-3).all()
    assert (exact.abs() - change.abs() < 1).all()


@pytest.mark.parametrize("eps_255", range(1, 33))
def test_whole_levels_are_not_lost_to_rounding_of_floats(eps_255):
    clean = torch.arange(256).byte().reshape(1, 1, 16, 16)
    up = (clean / 255 + torch.tensor(eps_255 / 255)).clamp(0, 1)
    down = (clean / 255 - torch.tensor(eps_255 / 255)).clamp(0, 1)
    assert torch.equal(to_pixels(up, clean, eps=eps_255 / 255), (clean.short() + eps_255).clamp(max=255).byte())
    assert torch.equal(to_pixels(down, clean, eps=eps_255 / 255), (clean.short() - eps_255).clamp(min=0).byte())


def test_a_radius_just_below_a_level_does_not_reach_it():
    clean = torch.full((1, 1, 2, 2), 100, dtype=torch.uint8)
    eps = 5.9995 / 255
    assert (to_pixels(clean.double() / 255 + eps, clean, eps=eps) == 105).all()


def test_errors_of_rounding():
    with pytest.raises(TypeError, match=r"clean: expected dtype torch\.uint8"):
        to_pixels(torch.rand(1, 1, 2, 2), torch.rand(1, 1, 2, 2), eps=0.1)
    with pytest.raises(ValueError, match="attacked: expected shape"):
        to_pixels(torch.rand(1, 1, 2, 2), torch.zeros(1, 1, 2, 3, dtype=torch.uint8), eps=0.1)


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=30), share=st.floats(0, 1))
def test_positions_are_spread_over_classes(labels, share):
    labels = torch.tensor(labels)
    count = round(share * len(labels))
    positions = spread_positions(labels, count)
    assert positions.tolist() == sorted(set(positions.tolist()))
    assert len(positions) == count
    held, drawn = torch.bincount(labels, minlength=5), torch.bincount(labels[positions], minlength=5)
    assert (drawn <= held).all()
    unfinished = drawn[drawn < held]
    assert len(unfinished) == 0 or drawn.max() - unfinished.min() <= 1


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 6)), image_set(4, 6)


@pytest.mark.parametrize("attack", ["st", "pgd"])
def test_the_whole_set_gives_the_recall_of_the_meter(case, attack):
    model, images = case
    setting = AttackSetting(attack=attack, eps=0.3, steps=5)
    queries = model(attack_images(model, images, setting, seed=5)).detach()
    gallery = embed(model, images)
    recall = query_recall(queries, torch.arange(len(images)), gallery, images.labels)
    assert recall == RobustnessMeter(model, images, seed=5).recall(setting)
    assert recall < query_recall(gallery, torch.arange(len(images)), gallery, images.labels)


def test_recall_leaves_the_image_itself_out():
    gallery = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    labels = torch.tensor([0, 1, 0, 1])
    positions = torch.tensor([2, 0])
    queries = torch.tensor([[3.1], [6.9]])  # the second one far from its clean version
    assert query_recall(queries, positions, gallery, labels) == 0.0
    assert query_recall(torch.tensor([[0.4], [2.9]]), positions, gallery, labels) == 1.0
