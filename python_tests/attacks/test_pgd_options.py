"""PGD: what it takes and refuses: normalisation, bounds, objectives, memory formats, options."""

from __future__ import annotations

import math

import pytest
import torch
from attacks.attack_cases import image_batch, small_net
from torch import nn

from mdprop_ext.attacks import PGD


def first_output(output, targets):
    return output[:, 0]


def test_normalisation_lies_inside():
    class Normalised(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            mean, std = (torch.tensor(v).reshape(1, 2, 1, 1) for v in ([0.4, 0.6], [0.2, 0.3]))
            return self.model((x - mean) / std)

    model = small_net().eval()
    x, y = image_batch()
    inside = PGD(model, mean=[0.4, 0.6], std=(0.2, 0.3), random_start=False).run(x, y)
    outside = PGD(Normalised(model), random_start=False).run(x, y)
    assert torch.equal(inside.x_adv, outside.x_adv)
    assert torch.equal(inside.objective, outside.objective)
    assert float(inside.distance.max()) == pytest.approx(8 / 255)


def test_bounds_per_channel():
    x = torch.full((2, 2, 3, 3), 0.5)
    upper = torch.tensor([0.55, 1.0]).reshape(2, 1, 1)
    found = PGD(nn.Flatten(), objective=lambda output, y: output.sum(1), eps=0.2, alpha=0.2, bounds=(0.0, upper))(x)
    torch.testing.assert_close(found.amax(dim=(0, 2, 3)), torch.tensor([0.55, 0.7]))


@pytest.mark.parametrize(
    "wrap", [lambda logits: {"logits": logits}, lambda logits: ("hidden", logits)], ids=["dict", "tuple"]
)
def test_objectives_take_any_output(wrap):
    class Wrapped(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return wrap(self.model(x))

    def select(output):
        return output["logits"] if isinstance(output, dict) else output[1]

    model = small_net().eval()
    x, y = image_batch()
    expected = PGD(model, random_start=False).run(x, y)
    found = PGD(Wrapped(model), output_fn=select, random_start=False).run(x, y)
    assert torch.equal(found.x_adv, expected.x_adv)
    assert torch.equal(found.success, expected.success)
    with pytest.raises(
        TypeError, match=r"output: expected a tensor of logits, got (dict|tuple); give the attack output_fn="
    ):
        PGD(Wrapped(model))(x, y)


def test_success_agrees_with_the_prediction():
    model = small_net().eval()
    x, _ = image_batch(24)
    y = model(x).argmax(dim=1)
    result = PGD(model, eps=0.3, alpha=0.1).run(x, y)
    prediction = model(result.x_adv).argmax(dim=1)
    assert torch.equal(result.success, prediction != y)
    assert int(result.success.sum()) > 0
    target = (y + 1) % 3
    result = PGD(model, target=target, eps=0.3, alpha=0.1).run(x, y)
    assert torch.equal(result.success, model(result.x_adv).argmax(dim=1) == target)
    plain = PGD(model, objective=first_output, eps=0.3).run(x)
    assert torch.equal(plain.success, model(plain.x_adv)[:, 0] > model(x)[:, 0])
    assert torch.equal(plain.objective, model(plain.x_adv)[:, 0].detach())


def test_channels_last_and_empty_batches():
    model = small_net()
    x, y = image_batch()
    found = PGD(model, random_start=False)(x.contiguous(memory_format=torch.channels_last), y)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, PGD(model, random_start=False)(x, y))
    assert PGD(model)(x[:0], y[:0]).shape == (0, 2, 5, 5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"eps": -0.1}, ValueError, "eps: expected a finite number >= 0, got -0.1"),
        ({"eps": "big"}, TypeError, "eps: expected a number or a tensor"),
        ({"eps": torch.zeros(2, 2)}, ValueError, r"eps: .*\[2, 2\]"),
        ({"eps": torch.tensor([0.1, math.nan])}, ValueError, "eps: expected finite values"),
        ({"alpha": math.inf}, ValueError, "alpha: expected a finite number"),
        ({"steps": -1}, ValueError, "steps: expected at least 0, got -1"),
        ({"steps": 1.5}, TypeError, "steps: expected an integer, got float"),
        ({"restarts": 0}, ValueError, "restarts: expected at least 1"),
        ({"restarts": 2, "random_start": False}, ValueError, "restarts: more than one needs random_start=True"),
        ({"norm": "l7"}, ValueError, "norm: expected one of linf, l2, l1, got 'l7'"),
        ({"bn_mode": "eval"}, ValueError, "bn_mode: expected one of running, batch, train, got 'eval'"),
        ({"bounds": (1, 0)}, ValueError, "bounds: expected lower < upper"),
        ({"bounds": 1}, TypeError, r"bounds: expected \(lower, upper\)"),
        ({"std": [1.0, 0.0]}, ValueError, "std: expected positive values"),
        ({"objective": 3}, TypeError, "objective: expected a callable"),
        ({"target": "cat"}, TypeError, "target: expected a class"),
    ],
)
def test_bad_options_are_refused_at_construction(options, error, message):
    with pytest.raises(error, match=message):
        PGD(small_net(), **options)


def test_bad_calls_are_refused():
    x, y = image_batch()
    model = small_net()
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got function"):
        PGD(lambda x: x)
    with pytest.raises(TypeError, match=r"x: expected a floating-point tensor, got torch\.uint8"):
        PGD(model)((x * 255).to(torch.uint8), y)
    with pytest.raises(ValueError, match="x: expected a batch"):
        PGD(model)(torch.rand(3))
    with pytest.raises(ValueError, match=r"y: expected one row a sample, 6 in all, got shape \[5\]"):
        PGD(model)(x, y[:5])
    with pytest.raises(ValueError, match="eps: expected one row a sample, 6 in all"):
        PGD(model, eps=torch.ones(4))(x, y)
    with pytest.raises(TypeError, match="y: cross entropy expects classes as int64"):
        PGD(model)(x)
    with pytest.raises(ValueError, match="mean: expected 1 or 2 values"):
        PGD(model, mean=[0.1, 0.2, 0.3])(x, y)
    with pytest.raises(
        ValueError, match=r"objective: expected one value a sample, a tensor of shape \[6\], got shape \[\]"
    ):
        PGD(model, objective=lambda output, y: output.sum())(x, y)
    with pytest.raises(ValueError, match="objective: expected values that depend on the input"):
        PGD(model, objective=lambda output, y: output.detach().sum(1))(x, y)
