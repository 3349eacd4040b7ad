"""Stripped layers that go on taking a residual."""

import copy

import pytest
import torch
from nn.norm_layers import CHANNELS, randomize
from torch import nn

from mdprop_ext.nn import MultiBatchNorm1d, MultiBatchNorm2d, MultiBatchNorm3d, strip_branches, use_branch
from mdprop_ext.nn.residual_batch_norm import RESIDUAL_CLASSES, ResidualBatchNorm2d


class Block(nn.Module):
    """A block that hands its input to its second norm, and none to its first."""

    def __init__(self, activation="relu"):
        super().__init__()
        self.bn1 = MultiBatchNorm2d(CHANNELS, activation="relu")
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.bn2 = MultiBatchNorm2d(CHANNELS, activation=activation)

    def forward(self, input):
        return self.bn2(self.conv(self.bn1(input)), input)


X = torch.randn(6, CHANNELS, 3, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("activation", ["relu", None])
@pytest.mark.parametrize("training", [True, False])
def test_a_block_with_a_residual_is_stripped(activation, training):
    model = randomize(Block(activation)).train(training)
    stripped = strip_branches(copy.deepcopy(model), "aux1", residual=True)
    assert list(stripped.state_dict()) == [name for name in model.state_dict() if "aux_bn" not in name]
    assert isinstance(stripped.bn2, nn.BatchNorm2d)
    with use_branch(model, "aux1"):
        expected = model(X)
    torch.testing.assert_close(stripped(X), expected)
    torch.testing.assert_close(stripped.bn2.running_mean, model.bn2.aux_bn[0].running_mean)


def test_it_is_exported_copied_and_repeated():
    stripped = strip_branches(randomize(Block()).eval(), residual=True)
    assert repr(stripped.bn2).startswith("ResidualBatchNorm2d(5, eps=1e-05")
    assert repr(stripped.bn2).endswith("activation='relu')")
    torch.testing.assert_close(torch.export.export(stripped, (X,)).module()(X), stripped(X))
    torch.testing.assert_close(copy.deepcopy(stripped)(X), stripped(X))
    assert strip_branches(stripped, residual=True) is stripped


@pytest.mark.parametrize(
    ("multi_class", "shape"),
    [(MultiBatchNorm1d, (4, 3)), (MultiBatchNorm2d, (4, 3, 2, 2)), (MultiBatchNorm3d, (4, 3, 2, 2, 2))],
)
def test_every_dimension(multi_class, shape):
    layer, x = randomize(multi_class(3)), torch.randn(shape)
    expected = layer.eval()(x, x)
    stripped = strip_branches(layer, residual=True)
    assert type(stripped) is RESIDUAL_CLASSES[multi_class.plain_class]
    torch.testing.assert_close(stripped(x, x), expected)


def test_a_wide_residual_is_narrowed_as_in_the_layer():
    layer = strip_branches(MultiBatchNorm2d(CHANNELS), residual=True)
    assert type(layer) is ResidualBatchNorm2d
    assert layer.eval()(X.bfloat16(), X).dtype == torch.bfloat16


def test_without_asking_the_layers_are_plain():
    model = strip_branches(Block(activation=None))
    assert type(model.bn2) is nn.BatchNorm2d
    with pytest.raises(TypeError, match="positional argument"):
        model(X)
