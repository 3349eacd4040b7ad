"""What an attack asks of a model: an input of its own for it, and one bool a sample for success."""

from __future__ import annotations

import pytest
import torch
from attacks.attack_cases import BUILDERS, image_batch, small_net
from torch import nn

from mdprop_ext.attacks import PGD, CrossEntropy


class InPlace(nn.Module):
    """Normalises its input in place, as many models do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()

    def forward(self, x):
        return self.net(x.sub_(0.5).div_(0.25))


@pytest.mark.parametrize("build", BUILDERS)
def test_models_that_change_their_input_change_no_images(build):
    x, y = image_batch()
    kept = x.clone()
    for options in ({}, {"eps": 0.0}):
        found = build(InPlace(), **options).run(x, y, seed=1)
        assert torch.equal(x, kept)
        expected = build(small_net(), mean=0.5, std=0.25, **options).run(x, y, seed=1)
        for name, value in vars(found).items():
            assert torch.equal(value, getattr(expected, name)), name


class OddSuccess(CrossEntropy):
    def __init__(self, change) -> None:
        super().__init__()
        self.change = change

    def success(self, clean_output, output, targets):
        return self.change(super().success(clean_output, output, targets))


@pytest.mark.parametrize("early_stop", [False, True])
@pytest.mark.parametrize(
    ("change", "got"),
    [
        (torch.Tensor.long, r"torch\.int64 \[6\]"),
        (lambda success: success[:, None], r"torch\.bool \[6, 1\]"),
        (torch.Tensor.all, r"torch\.bool \[\]"),
        (lambda success: True, "bool"),
    ],
)
def test_success_is_one_bool_a_sample(change, got, early_stop):
    x, y = image_batch()
    attack = PGD(small_net(), objective=OddSuccess(change), early_stop=early_stop)
    with pytest.raises(ValueError, match=rf"objective: expected success as bool of shape \[6\], got {got}"):
        attack.run(x, y)
