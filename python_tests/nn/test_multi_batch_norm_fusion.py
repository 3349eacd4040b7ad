"""The layer with what follows it in the same pass: a residual and a ReLU."""

import pytest
import torch
from nn.norm_layers import CHANNELS, OPTIONS, assert_same_branches, plain_branches, randomize
from torch import nn

from mdprop_ext.nn import MultiBatchNorm2d, use_branches


def test_fused_relu():
    layer = randomize(MultiBatchNorm2d(CHANNELS, activation="relu"))
    plain = plain_branches(layer, nn.BatchNorm2d)
    x = torch.randn(8, CHANNELS, 3, 3)
    expected = torch.cat([plain[0](x[:5]), plain[1](x[5:])]).relu()
    with use_branches(layer, {"main": 5, "aux1": 3}):
        y = layer(x)
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    assert_same_branches(layer, plain)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_residual_and_relu_in_one_pass(options, training):
    layer = randomize(MultiBatchNorm2d(CHANNELS, activation="relu", **options)).train(training)
    plain = plain_branches(layer, nn.BatchNorm2d)
    x, residual = (torch.randn(8, CHANNELS, 3, 3, requires_grad=True) for _ in range(2))
    expected = (torch.cat([plain[0](x[:5]), plain[1](x[5:])]) + residual).relu()
    with use_branches(layer, {"main": 5, "aux1": 3}):
        y = layer(x, residual=residual)
    torch.testing.assert_close(y, expected)
    upstream = torch.randn_like(y)
    inputs = [x, residual, *layer.parameters()]
    plain_inputs = [x, residual, *(parameter for norm in plain for parameter in norm.parameters())]
    grads, expected_grads = (
        torch.autograd.grad(y, inputs, upstream),
        torch.autograd.grad(expected, plain_inputs, upstream),
    )
    torch.testing.assert_close(grads, expected_grads, atol=1e-4, rtol=1e-4)
    assert_same_branches(layer, plain)


def test_a_residual_must_be_like_the_input():
    layer, x = MultiBatchNorm2d(CHANNELS), torch.randn(2, CHANNELS, 3, 3)
    with pytest.raises(ValueError, match="residual: expected the shape of input"):
        layer(x, x[:1])
    with pytest.raises(TypeError, match="residual: expected the dtype of input"):
        layer(x, x.double())


def test_a_wide_residual_is_narrowed_under_autocast():
    layer, x, residual = MultiBatchNorm2d(3, activation="relu"), torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x.bfloat16(), residual)
    assert y.dtype == torch.bfloat16
    with pytest.raises(TypeError, match="residual: expected the dtype of input"):
        layer(x.bfloat16(), residual)
