"""The layers against plain batch norms, one for each branch."""

import contextlib
import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nn.norm_layers import CHANNELS, OPTIONS, assert_same_branches, plain_branches, plain_norm, randomize
from torch import nn

from mdprop_ext.nn import (
    MultiBatchNorm1d,
    MultiBatchNorm2d,
    MultiBatchNorm3d,
    MultiBNFused,
    use_branch,
    use_branches,
)

KINDS = {
    "1d": (MultiBatchNorm1d, nn.BatchNorm1d, (8, CHANNELS)),
    "1d_length": (MultiBatchNorm1d, nn.BatchNorm1d, (6, CHANNELS, 4)),
    "2d": (MultiBatchNorm2d, nn.BatchNorm2d, (6, CHANNELS, 3, 4)),
    "3d": (MultiBatchNorm3d, nn.BatchNorm3d, (4, CHANNELS, 2, 3, 2)),
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_without_a_route_the_layer_is_a_batch_norm(kind, options):
    multi_class, plain_class, shape = kind
    layer, plain = randomize(multi_class(CHANNELS, **options)), plain_norm(plain_class, **options)
    plain.load_state_dict({key: value for key, value in layer.state_dict().items() if "aux_bn" not in key})
    untouched = copy.deepcopy(layer.aux_bn.state_dict())
    for training in (True, True, False):
        x = torch.randn(shape, requires_grad=True)
        x_plain = x.detach().clone().requires_grad_()
        y, y_plain = layer.train(training)(x), plain.train(training)(x_plain)
        torch.testing.assert_close(y, y_plain)
        y.square().sum().backward()
        y_plain.square().sum().backward()
        torch.testing.assert_close(x.grad, x_plain.grad, atol=1e-4, rtol=1e-4)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[name], value)
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(layer.get_parameter(name).grad, parameter.grad, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(value, untouched[name]) for name, value in layer.aux_bn.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_mixed_batches_match_one_batch_norm_a_branch(kind, options, training):
    multi_class, plain_class, shape = kind
    layer = randomize(multi_class(CHANNELS, num_branches=4, **options)).train(training)
    plain = plain_branches(layer, plain_class)
    ids = torch.tensor([2, 0, 3, 3, 2, 0, 0, 2][: shape[0]])  # branch 1 stays empty
    x = torch.randn(shape)
    expected = torch.empty(shape)
    for index in (0, 2, 3):
        expected[ids == index] = plain[index](x[ids == index])
    with use_branches(layer, ids):
        y = layer(x)
    torch.testing.assert_close(y, expected)
    if layer.affine:
        upstream = torch.randn(shape)
        y.backward(upstream)
        expected.backward(upstream)
    assert_same_branches(layer, plain)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=9), st.booleans())
def test_any_ids_match_one_batch_norm_a_branch(ids, training):
    layer = randomize(MultiBatchNorm2d(CHANNELS, num_branches=3)).train(training)
    plain = plain_branches(layer, nn.BatchNorm2d)
    x = torch.randn(len(ids), CHANNELS, 2, 3)
    ids = torch.tensor(ids)
    expected = torch.empty_like(x)
    for index in ids.unique().tolist():
        expected[ids == index] = plain[index](x[ids == index]).detach()
    with use_branches(layer, ids):
        torch.testing.assert_close(layer(x), expected)
    assert_same_branches(layer, plain)


@pytest.mark.parametrize("branch", [0, 1, 2])
def test_a_whole_batch_takes_its_branch_only(branch):
    layer = randomize(MultiBatchNorm2d(CHANNELS, num_branches=3))
    plain = plain_branches(layer, nn.BatchNorm2d)
    x = torch.randn(4, CHANNELS, 3, 3)
    with use_branch(layer, branch):
        torch.testing.assert_close(layer(x), plain[branch](x))
    assert_same_branches(layer, plain)
    assert [int(norm.num_batches_tracked) for norm in (layer, *layer.aux_bn)] == [int(i == branch) for i in range(3)]


def test_batch_statistics_are_not_written_when_tracking_is_switched_off():
    layer = randomize(MultiBatchNorm2d(CHANNELS))
    before = copy.deepcopy(layer.state_dict())
    layer.track_running_stats = False
    x = torch.randn(6, CHANNELS, 3, 3)
    with use_branch(layer, 1):
        y = layer(x)
    expected = nn.functional.batch_norm(x, None, None, layer.aux_bn[0].weight, layer.aux_bn[0].bias, training=True)
    torch.testing.assert_close(y, expected)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_graph_that_holds_statistics_refuses_those_of_later(dtype):
    layer = MultiBatchNorm2d(CHANNELS).to(dtype)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        held = torch.ones(CHANNELS, requires_grad=True) * getattr(layer.aux_bn[0], name)
        with use_branch(layer, 1):
            layer(torch.randn(4, CHANNELS, 2, 2, dtype=dtype))
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            held.sum().backward()


@pytest.mark.parametrize("ids", [[], [1], [0, 0, 1]], ids=["no route", "whole batch", "mixed"])
def test_one_value_per_channel_raises_in_training_only(ids):
    layer = MultiBatchNorm1d(CHANNELS)
    x = torch.randn(max(1, len(ids)), CHANNELS)
    if not ids:
        context = contextlib.nullcontext()
    else:
        context = use_branch(layer, 1) if len(ids) == 1 else use_branches(layer, torch.tensor(ids))
    with context:
        with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
            layer(x)
        assert layer.eval()(x).shape == x.shape
    assert [int(norm.num_batches_tracked) for norm in (layer, layer.aux_bn[0])] == [0, 0]


def test_shared_affine_has_one_scale_and_several_statistics():
    layer = MultiBatchNorm2d(CHANNELS, num_branches=3, share_affine=True)
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    nn.init.uniform_(layer.weight)
    x = torch.randn(6, CHANNELS, 2, 2)
    with use_branches(layer, {"aux1": 2, "main": 4}):
        y = layer(x)
    parts = [nn.functional.batch_norm(part, None, None, layer.weight, layer.bias, True) for part in (x[:2], x[2:])]
    torch.testing.assert_close(y, torch.cat(parts))
    y.square().sum().backward()
    torch.testing.assert_close(layer.bias.grad, 2 * y.detach().sum((0, 2, 3)), atol=1e-4, rtol=1e-4)
    assert not torch.equal(layer.running_mean, layer.aux_bn[0].running_mean)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_converted_layers_compute_and_learn_in_their_dtype(dtype):
    layer = randomize(MultiBatchNorm2d(CHANNELS))
    reference = copy.deepcopy(layer)
    layer.to(dtype)
    x = torch.randn(8, CHANNELS, 4, 4, dtype=dtype)
    for routed in (layer, reference):
        with use_branches(routed, {"main": 4, "aux1": 4}):
            y = routed(x.to(routed.weight.dtype))
        y.float().sum().backward()
    assert all(value.dtype in (dtype, torch.int64) for value in layer.state_dict().values())
    tolerance = {torch.bfloat16: 5e-2, torch.float16: 5e-3, torch.float64: 1e-5}[dtype]
    with use_branches(layer.eval(), {"main": 4, "aux1": 4}), use_branches(reference.eval(), {"main": 4, "aux1": 4}):
        y, expected = layer(x), reference(x.float())
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(
        layer.aux_bn[0].running_mean.float(), reference.aux_bn[0].running_mean, atol=tolerance, rtol=tolerance
    )
    assert layer.aux_bn[0].weight.grad.dtype == dtype


def test_half_input_keeps_float_statistics():
    layer = MultiBatchNorm2d(CHANNELS)
    y = layer(torch.randn(8, CHANNELS, 4, 4, dtype=torch.bfloat16))
    assert (y.dtype, layer.running_mean.dtype) == (torch.bfloat16, torch.float32)


def test_channels_last_is_kept():
    layer = MultiBatchNorm2d(CHANNELS)
    x = torch.randn(4, CHANNELS, 3, 3).contiguous(memory_format=torch.channels_last)
    with use_branches(layer, {"main": 2, "aux1": 2}):
        assert layer(x).is_contiguous(memory_format=torch.channels_last)


def test_state_dict_is_that_of_a_batch_norm_with_auxiliary_branches():
    names = list(nn.BatchNorm2d(CHANNELS).state_dict())
    layer = MultiBatchNorm2d(CHANNELS, num_branches=3)
    expected = names + [f"aux_bn.{index}.{name}" for index in range(2) for name in names]
    assert list(layer.state_dict()) == expected
    with use_branch(layer, 1):
        assert list(layer.state_dict()) == expected
    plain = randomize(nn.BatchNorm2d(CHANNELS))
    missing, unexpected = layer.load_state_dict(plain.state_dict(), strict=False)
    assert all(name.startswith("aux_bn.") for name in missing)
    assert unexpected == []
    assert torch.equal(layer.weight, plain.weight)


def test_copies_made_inside_a_context_are_not_routed():
    layer = randomize(MultiBatchNorm2d(CHANNELS, branches=("clean", "adv"), activation="relu"))
    x = torch.randn(4, CHANNELS, 2, 2)
    with use_branch(layer, "adv"):
        copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.copy(layer)]
        assert layer.route is not None
    for copied in copies:
        assert copied.branches == ("clean", "adv")
        assert copied.route is None
        torch.testing.assert_close(copied.eval()(x), layer.eval()(x))


def test_resets_reach_every_branch():
    (layer := randomize(MultiBNFused(CHANNELS))).reset_parameters()
    torch.testing.assert_close(dict(layer.state_dict()), dict(MultiBNFused(CHANNELS).state_dict()), rtol=0, atol=0)


def test_repr_names_branches_and_what_is_special():
    text = repr(MultiBatchNorm2d(CHANNELS, branches=("clean", "adv"), share_affine=True, activation="relu"))
    assert text.startswith("MultiBatchNorm2d(\n  5, eps=1e-05, momentum=0.1")
    assert "branches=('clean', 'adv'), share_affine=True, activation='relu'" in text


def test_libraries_recognise_the_layers_as_batch_norms():
    assert MultiBNFused is MultiBatchNorm2d
    for multi_class, plain_class, _ in KINDS.values():
        assert issubclass(multi_class, plain_class)
        assert "BatchNorm" in multi_class.__name__


def test_torch_cannot_drop_the_branches_by_its_own_conversion():
    model = nn.Sequential(nn.Conv2d(3, CHANNELS, 1), MultiBatchNorm2d(CHANNELS))
    with pytest.raises(TypeError, match="strip_branches"):
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert isinstance(model[1], MultiBatchNorm2d)
    assert type(model[1].aux_bn[0]) is nn.BatchNorm2d


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_branches": 0}, ValueError, "num_branches"),
        ({"num_branches": 3, "branches": ("a", "b")}, ValueError, "num_branches must be the number of branches, 2"),
        ({"branches": ()}, ValueError, "branches"),
        ({"branches": ("main", "main")}, ValueError, "unique"),
        ({"branches": ("main", "")}, ValueError, "not empty"),
        ({"branches": "main"}, TypeError, "branches"),
        ({"branches": (1, 2)}, TypeError, "branches"),
        ({"branches": 3}, TypeError, "branches must be a sequence of strings"),
        ({"branches": {"main", "adv"}}, TypeError, "branches must be a sequence of strings"),
        ({"branches": iter(["main", "adv"])}, TypeError, "branches must be a sequence of strings"),
        ({"num_branches": 2.0}, TypeError, "num_branches must be a whole number, got 2.0"),
        ({"num_branches": True}, TypeError, "num_branches must be a whole number, got True"),
        ({"activation": "gelu"}, ValueError, "activation"),
        ({"eps": ("main", "adv")}, TypeError, "eps: expected a number, got tuple"),
        ({"eps": -1e-5}, ValueError, "eps: expected a number >= 0, got -1e-05"),
        ({"momentum": "0.1"}, TypeError, "momentum: expected a number, got str"),
        ({"momentum": 1.1}, ValueError, r"momentum: expected a number in \[0, 1\], got 1.1"),
    ],
)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        MultiBatchNorm2d(CHANNELS, **options)


def test_wrong_dimensions_raise_as_in_batch_norm():
    with pytest.raises(ValueError, match="expected 4D input"):
        MultiBatchNorm2d(CHANNELS)(torch.randn(4, CHANNELS))
    with pytest.raises(ValueError, match="must have 5 channels"):
        MultiBatchNorm2d(CHANNELS)(torch.randn(4, CHANNELS + 1, 2, 2))
