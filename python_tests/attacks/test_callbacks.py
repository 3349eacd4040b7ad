"""Callbacks see every point that an attack evaluates, and change nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from attacks.attack_cases import BUILDERS, fingerprint, image_batch, small_net
from torch import nn

from mdprop_ext.attacks import FGSM, MIFGSM, PGD, CrossEntropy


@pytest.mark.parametrize("build", BUILDERS)
def test_callbacks_see_each_point_and_change_nothing(build):
    x, y = image_batch()
    model = small_net().eval()
    options = {"eps": 0.2, **({} if build is FGSM else {"steps": 3, "keep_best": True})}
    steps = [0] if build is FGSM else [0, 1, 2, 3]
    seen = []

    def meddle(step, state):
        seen.append((step, copy.deepcopy(state)))
        assert not torch.is_grad_enabled()
        torch.rand(5)
        for tensor in (state.images, state.values, state.gradient, state.rows):
            if tensor is not None:
                tensor.zero_()
        return "ignored"

    before = fingerprint(model)
    quiet = build(model, **options).run(x, y, seed=1)
    watched = build(model, callback=meddle, **options).run(x, y, seed=1)
    assert fingerprint(model) == before
    assert torch.equal(watched.x_adv, quiet.x_adv)
    assert torch.equal(watched.objective, quiet.objective)
    assert [step for step, _ in seen] == steps
    for step, state in seen:
        assert torch.equal(state.rows, torch.arange(6))
        assert (state.gradient is None) == (step == 3)
        if build in (PGD, FGSM, MIFGSM):
            torch.testing.assert_close(state.values, CrossEntropy()(model(state.images), y).detach())
    if build is not FGSM:
        values = torch.stack([state.values for _, state in seen])
        torch.testing.assert_close(quiet.objective, values.amax(0))


def test_callbacks_of_an_early_stop_name_the_samples_that_are_left():
    model = small_net().eval()
    x, _ = image_batch(12)
    y = model(x).argmax(dim=1)
    seen = []
    attack = PGD(model, eps=0.3, alpha=0.05, early_stop=True, callback=lambda step, state: seen.append(state))
    attack(x, y)
    assert torch.equal(seen[0].rows, torch.arange(12))
    assert len(seen[-1].rows) < 12
    for state in seen:
        torch.testing.assert_close(state.values, CrossEntropy()(model(state.images), y[state.rows]).detach())


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = small_net().eval()

    def forward(self, x):
        return self.net(x + 0.1 * torch.randn_like(x))


def test_random_numbers_of_a_callback_do_not_reach_the_model():
    x, y = image_batch()
    plain = PGD(Noisy(), steps=3)(x, y, seed=2)
    assert torch.equal(PGD(Noisy(), steps=3, callback=lambda step, state: torch.rand(7))(x, y, seed=2), plain)
    assert not torch.equal(PGD(Noisy(), steps=3)(x, y, seed=3), plain)
