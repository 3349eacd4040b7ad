"""Normalisation as part of the model: attacks stay in pixel units."""

from __future__ import annotations

import copy

import pytest
import torch
from attacks.attack_cases import image_batch, small_net
from torch import nn

from mdprop_ext import attacks
from mdprop_ext.attacks import PGD, FeatureTargetAttack
from mdprop_ext.nn import Normalized

MEAN, STD = [0.4, 0.6], (0.2, 0.3)


def test_it_is_the_formula():
    x = torch.rand(3, 2, 4, 4)
    mean, std = torch.tensor(MEAN).reshape(2, 1, 1), torch.tensor(STD).reshape(2, 1, 1)
    assert torch.equal(Normalized(nn.Identity(), MEAN, STD)(x), (x - mean) / std)
    assert torch.equal(Normalized(nn.Identity(), 0.5, 0.25)(x), (x - 0.5) / 0.25)
    flat = Normalized(nn.Identity(), MEAN, STD)(x[:, :, 0, 0])
    assert torch.equal(flat, (x[:, :, 0, 0] - torch.tensor(MEAN)) / torch.tensor(STD))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_attacks_are_those_with_mean_and_std(dtype):
    model = small_net().to(dtype)
    x, y = image_batch(dtype=dtype)
    wrapped = Normalized(copy.deepcopy(model), MEAN, STD).to(dtype)
    for build in (PGD, FeatureTargetAttack):
        inside = build(model, mean=MEAN, std=STD, eps=0.1).run(x, y, seed=1)
        outside = build(wrapped, eps=0.1).run(x, y, seed=1)
        for name, value in vars(inside).items():
            assert torch.equal(value, getattr(outside, name)), name
    assert attacks.Normalized is Normalized


def test_it_is_a_module_like_others():
    wrapped = Normalized(small_net(), MEAN, STD)
    assert set(wrapped.state_dict()) == {f"model.{name}" for name in small_net().state_dict()}
    assert "mean=[0.4, 0.6], std=[0.2, 0.3]" in repr(wrapped)
    x, _ = image_batch()
    wrapped.eval()
    torch.testing.assert_close(copy.deepcopy(wrapped)(x), wrapped(x))
    torch.testing.assert_close(
        wrapped.double()(x.double()).float(),
        small_net().eval()((x - wrapped.mean.float().reshape(2, 1, 1)) / wrapped.std.float().reshape(2, 1, 1)),
    )
    images = x.contiguous(memory_format=torch.channels_last)
    assert Normalized(nn.Identity(), MEAN, STD)(images).is_contiguous(memory_format=torch.channels_last)


def test_outputs_of_any_form_pass_through():
    class Named(nn.Module):
        def forward(self, x):
            return {"x": x}

    x = torch.rand(2, 1, 2, 2)
    assert torch.equal(Normalized(Named(), 0.0, 1.0)(x)["x"], x)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3, 0.5, 0.5), TypeError, r"model: expected a torch\.nn\.Module, got int"),
        ((nn.Identity(), 0.5, 0.0), ValueError, "std: expected positive values"),
        ((nn.Identity(), "grey", 1.0), TypeError, "mean: expected a number or one number a channel, got str"),
        ((nn.Identity(), float("nan"), 1.0), ValueError, "mean: expected finite values"),
        ((nn.Identity(), [], 1.0), ValueError, "mean: expected a number or one number a channel, got no values"),
        ((nn.Identity(), [0.1, 0.2, 0.3], [1.0, 2.0]), ValueError, "std: expected 1 or 3 values, .*, got 2"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Normalized(*arguments)


def test_one_value_serves_all_channels_of_the_other():
    x = torch.rand(3, 2, 4, 4)
    for mean, std in ((MEAN, 0.5), (0.5, STD), ([0.5], STD)):
        whole = Normalized(nn.Identity(), *(torch.as_tensor(values).expand(2) for values in (mean, std)))
        assert torch.equal(Normalized(nn.Identity(), mean, std)(x), whole(x))


def test_attacks_refuse_other_numbers_of_deviations_at_construction():
    with pytest.raises(ValueError, match="std: expected 1 or 2 values, as many as mean has, got 3"):
        PGD(small_net(), mean=MEAN, std=[0.1, 0.2, 0.3])
    PGD(small_net(), mean=MEAN)(*image_batch())


def test_images_in_bytes_are_refused():
    with pytest.raises(TypeError, match=r"x: expected floating-point images, .* got torch\.uint8"):
        Normalized(nn.Identity(), MEAN, STD)(torch.zeros(1, 2, 2, 2, dtype=torch.uint8))


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match=r"mean: expected 1 or 3 values \(channels of x\), got 2"):
        Normalized(nn.Identity(), MEAN, STD)(torch.rand(1, 3, 2, 2))
