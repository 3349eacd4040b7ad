"""Gradients of half-precision models neither vanish nor overflow on the way back."""

from __future__ import annotations

import pytest
import torch
from attacks.attack_cases import FlatLinear
from torch import nn

from mdprop_ext.attacks import FGSM, MIFGSM, PGD, CrossEntropy, Pixels
from mdprop_ext.attacks.aim import Aim
from mdprop_ext.attacks.gradients import look_up


class Confident(nn.Module):
    """Multiplies its logits by a large factor at the end, in its own dtype."""

    def __init__(self, weight, factor):
        super().__init__()
        self.weight, self.factor = nn.Parameter(weight), factor

    def forward(self, x):
        return (x.flatten(1) @ self.weight.T) * self.factor


@pytest.mark.parametrize("build", [FGSM, PGD, MIFGSM])
def test_confident_float16_models_are_attacked_like_the_wide_model(build):
    torch.manual_seed(0)
    weight = torch.randn(2, 12).half()
    difference = (weight[0] - weight[1]).double()
    x = (0.5 + 0.01 * torch.randn(5, 3, 2, 2)).half()
    margin = x.double().flatten(1) @ difference
    factor = 15 / float(margin.abs().min())
    y = (margin < 0).long()
    # What float16 would have to hold: the probability of the other class, at the steps of 2^-24 that it has there.
    assert float((-(factor * margin).abs()).exp().max()) < 8 * 2**-24
    found = build(Confident(weight, factor), eps=0.01, **({} if build is FGSM else {"alpha": 0.005, "steps": 4}))(x, y)
    clear = difference.abs().reshape(3, 2, 2) > 0.3 * difference.abs().max()
    direction = (2 * y - 1).reshape(-1, 1, 1, 1) * difference.sign().reshape(3, 2, 2)
    assert torch.equal((found - x).sign().masked_select(clear), direction.masked_select(clear).half())


def look(model, x, targets, objective, *, apart=True):
    aim = Aim(x, model=model, objective=objective, parametrisation=Pixels(), targets=targets)
    return look_up(aim, x, with_success=False, samples_apart=apart)


def test_each_sample_is_scaled_by_a_power_of_two():
    weight = torch.randn(3, 12).bfloat16()
    x, y = torch.rand(4, 12).bfloat16(), torch.tensor([0, 1, 2, 0])
    model = FlatLinear(weight)
    free, plain = (look(model, x, y, CrossEntropy(), apart=apart).gradient.double() for apart in (True, False))
    ratio = (free / plain).nanmedian(dim=1).values
    assert torch.equal(ratio.log2(), ratio.log2().round())
    # The plain gradient was rounded at other magnitudes, but bfloat16 has the same digits at all of them.
    assert torch.equal(free, plain * ratio[:, None])
    assert len(ratio.unique()) > 1


def test_heads_keep_their_weights():
    """Several half tensors of one output share the scale of a sample."""

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = (nn.Parameter(torch.randn(12).half()) for _ in range(2))

        def forward(self, x):
            return {"a": x @ self.first, "b": [(x @ self.second, None)], "c": x.float().sum(1)}

    model, x = Heads(), torch.rand(4, 12).half()

    def objective(output, targets):
        assert output["a"].dtype == torch.float32
        return 3 * output["a"] - 1e-3 * output["b"][0][0]

    gradient = look(model, x, None, objective).gradient.double()
    expected = (3 * model.first.double() - 1e-3 * model.second.double()).detach()
    scale = gradient.norm() / (2 * expected.norm())
    torch.testing.assert_close(gradient, (scale * expected).expand(4, 12), rtol=2e-3, atol=1e-2 * float(scale))


@pytest.mark.parametrize("value", [0.0, float("inf"), float("nan")])
def test_samples_without_a_usable_gradient_do_not_move_and_disturb_no_other(value):
    weight = torch.randn(1, 12).half()
    x = torch.rand(3, 12).half()

    def objective(output, targets):
        return output[:, 0] * torch.tensor([1.0, value, 1.0])

    gradient = look(FlatLinear(weight), x, None, objective).gradient
    assert torch.equal(gradient[0].sign(), weight[0].sign())
    assert torch.equal(gradient[2].sign(), weight[0].sign())
    if value == 0:
        assert not bool(gradient[1].any())


class Proxies(nn.Module):
    """An objective with weights of its own, which need a gradient even where the images get none."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, output, targets):
        return (output.detach() * self.weight).sum(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_objective_of_detached_outputs_is_refused(dtype):
    model = FlatLinear(torch.randn(1, 12, dtype=dtype))
    with pytest.raises(ValueError, match="objective: expected values that depend on the input differentiably"):
        look(model, torch.rand(3, 12, dtype=dtype), None, Proxies())


def test_outputs_without_a_row_for_each_sample_are_left_as_they_are():
    x = torch.rand(3, 12).half()
    weight = torch.randn(1, 12).half()

    class WithTotal(FlatLinear):
        def forward(self, x):
            output = super().forward(x)
            return output, output.sum()

    result = look(WithTotal(weight), x, None, lambda output, targets: output[0][:, 0].float() + output[1].float())
    torch.testing.assert_close(result.gradient, (4 * weight).expand(3, 12), rtol=1e-3, atol=0)


def test_parts_of_the_output_without_a_gradient_reach_the_objective_unchanged():
    x, weight = torch.rand(3, 12).half(), torch.randn(1, 12).half()
    counts = torch.tensor([1.0, 2.0, 4.0]).half()
    seen = []

    class WithCounts(FlatLinear):
        def forward(self, x):
            return super().forward(x), counts

    def objective(output, targets):
        seen.append(output[1])
        return output[0][:, 0] * output[1].float()

    result = look(WithCounts(weight), x, None, objective)
    assert all(tensor is counts for tensor in seen)
    scales = result.gradient.float() / weight.float()
    # Each sample may be scaled by a power of two.
    torch.testing.assert_close(scales, scales[:, :1].expand(3, 12), rtol=1e-2, atol=0)
    assert bool((scales > 0).all())
