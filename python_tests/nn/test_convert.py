"""Conversion to several branches and back: what it keeps, fuses and refuses."""

import copy
import itertools

import pytest
import torch
from nn.peer_layers import BatchNormAct2d
from torch import nn
from torch.nn.utils import parametrize

from mdprop_ext.nn import (
    MultiBatchNorm1d,
    MultiBatchNorm2d,
    MultiBatchNorm3d,
    backbones,
    branch_names,
    branch_parameters,
    convert_multi_bn,
    strip_branches,
    use_branch,
    use_branches,
)
from mdprop_ext.nn.backbones.resnet import BasicBlock, Bottleneck, ResNet

NAMES = ("main", "st", "mt")
pytestmark = pytest.mark.filterwarnings("ignore:fuse_activation=True found no ReLU")


def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 1),
        nn.InstanceNorm2d(4),
        nn.Flatten(),
        nn.BatchNorm1d(36),
    )
    with torch.no_grad():
        model(torch.randn(8, 2, 3, 3))
        for parameter in model.parameters():
            parameter.add_(torch.rand_like(parameter))
    return model


X = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("fuse_activation", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_every_branch_starts_as_the_plain_network(training, fuse_activation):
    plain = network().train(training)
    model = convert_multi_bn(copy.deepcopy(plain), NAMES, fuse_activation=fuse_activation)
    assert branch_names(model) == NAMES
    for branch in NAMES:
        with use_branch(model, branch):
            torch.testing.assert_close(model(X), copy.deepcopy(plain)(X))


def test_conversion_keeps_the_modules_and_what_hangs_on_them():
    model = network().to(torch.float64)
    before = list(model.modules())
    model[1].eval()
    model[1].weight.requires_grad_(False)
    seen = []
    model[1].register_forward_hook(lambda module, inputs, output: seen.append(module))
    parameters = dict(model.named_parameters())
    assert convert_multi_bn(model, NAMES) is model
    after = [module for module in model.modules() if module in before]
    assert all(one is other for one, other in zip(before, after, strict=True))
    assert all(model.get_parameter(name) is parameter for name, parameter in parameters.items())
    assert [type(model[i]) for i in (1, 4, 6)] == [MultiBatchNorm2d, nn.InstanceNorm2d, MultiBatchNorm1d]
    for branch in model[1].aux_bn:
        assert (branch.training, branch.weight.requires_grad, branch.bias.requires_grad) == (False, False, True)
        assert branch.running_mean.dtype == torch.float64
        assert torch.equal(branch.running_mean, model[1].running_mean)
        assert branch.running_mean.data_ptr() != model[1].running_mean.data_ptr()
    assert model[6].aux_bn[0].training
    model(X.double())
    assert seen == [model[1]]


def test_a_module_used_twice_stays_one():
    shared = nn.BatchNorm2d(4)
    model = nn.ModuleDict({"first": nn.Sequential(shared, nn.ReLU()), "second": shared})
    convert_multi_bn(model, NAMES, fuse_activation=True)
    assert model["first"][0] is model["second"]
    # Fused, the second use would get a ReLU that it never had.
    assert model["second"].activation is None
    assert type(model["first"][1]) is nn.ReLU


@pytest.mark.parametrize(
    ("plain_class", "multi_class"),
    [(nn.BatchNorm1d, MultiBatchNorm1d), (nn.BatchNorm2d, MultiBatchNorm2d), (nn.BatchNorm3d, MultiBatchNorm3d)],
)
@pytest.mark.parametrize(
    "options", [{}, {"affine": False, "momentum": None}, {"track_running_stats": False, "eps": 0.1}]
)
def test_a_batch_norm_itself_and_its_options(plain_class, multi_class, options):
    norm = plain_class(3, **options)
    expected = repr(norm)
    keys = list(norm.state_dict())
    converted = convert_multi_bn(norm, NAMES)
    assert type(converted) is multi_class
    assert (converted.eps, converted.momentum) == (norm.eps, norm.momentum)
    stripped = strip_branches(converted)
    assert type(stripped) is plain_class
    assert (repr(stripped), list(stripped.state_dict())) == (expected, keys)


@pytest.mark.parametrize("keep", ["main", "mt", 1])
@pytest.mark.parametrize("fuse_activation", [True, False])
def test_strip_gives_the_kept_branch_as_a_plain_network(keep, fuse_activation):
    plain = network()
    model = convert_multi_bn(copy.deepcopy(plain), NAMES, fuse_activation=fuse_activation)
    with use_branches(model, {"main": 5, "st": 7, "mt": 4}):
        model(torch.randn(16, 2, 3, 3)).square().sum().backward()
    with torch.no_grad():
        for index, branch in enumerate(NAMES):
            for parameter in branch_parameters(model, branch):
                parameter.add_(index)
    model.eval()
    with use_branch(model, keep):
        expected = model(X)
    kept = list(branch_parameters(model, keep))
    stripped = strip_branches(model, keep)
    assert [type(module) for module in stripped.modules()] == [type(module) for module in plain.modules()]
    assert repr(stripped) == repr(plain)
    assert list(stripped.state_dict()) == list(plain.state_dict())
    assert stripped[1].weight is kept[0]
    torch.testing.assert_close(stripped(X), expected)
    torch.testing.assert_close(torch.export.export(stripped, (X,)).module()(X), expected)
    assert strip_branches(stripped) is stripped


def test_strip_keeps_the_first_branch_by_default():
    layer = MultiBatchNorm2d(4, branches=("clean", "adv"))
    with torch.no_grad():
        layer.running_mean.add_(1)
    assert torch.equal(strip_branches(layer).running_mean, torch.ones(4))


def test_strip_keeps_shared_affine_parameters():
    layer = MultiBatchNorm2d(3, share_affine=True).eval()
    layer.aux_bn[0].running_mean.add_(1)
    weight, x = layer.weight, torch.randn(2, 3, 2, 2)
    with use_branch(layer, "aux1"):
        expected = layer(x)
    stripped = strip_branches(layer, "aux1")
    assert stripped.weight is weight
    torch.testing.assert_close(stripped(x), expected)


def test_neighbours_in_a_sequential_are_fused():
    model = convert_multi_bn(network(), NAMES, fuse_activation=True)
    assert (model[1].activation, type(model[2]), model[6].activation) == ("relu", nn.Identity, None)


def test_a_relu_is_kept_where_fusing_would_change_something():
    models = [nn.Sequential(nn.BatchNorm2d(3), nn.ReLU6())]
    for index, kind in itertools.product(
        (0, 1), ("forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook")
    ):
        models.append(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()))
        getattr(models[-1][index], f"register_{kind}")(lambda *_: None)
    for model in models:
        kept = model[1]
        convert_multi_bn(model, NAMES, fuse_activation=True)
        assert model[0].activation is None
        assert model[1] is kept


@pytest.mark.parametrize(
    ("make", "fused", "norms"), [(backbones.conv4, 4, 4), (backbones.resnet18, 9, 20), (backbones.resnet50, 33, 53)]
)
def test_backbones_declare_their_pairs(make, fused, norms):
    with torch.device("meta"):
        plain, model = make(in_channels=1), convert_multi_bn(make(in_channels=1), NAMES, fuse_activation=True)
    activations = [module.activation for module in model.modules() if isinstance(module, MultiBatchNorm2d)]
    assert (activations.count("relu"), len(activations)) == (fused, norms)
    stripped = strip_branches(model)
    assert [type(module) for module in stripped.modules()] == [type(module) for module in plain.modules()]
    assert list(stripped.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("block", [None, BasicBlock, Bottleneck])
def test_fused_backbones_compute_the_same(block):
    torch.manual_seed(0)
    options = {"in_channels": 1, "embedding_dim": 4, "num_classes": None, "stem": "cifar", "normalize": True}
    plain = backbones.conv4() if block is None else ResNet(block, (1, 1, 1, 1), **options)
    model = convert_multi_bn(copy.deepcopy(plain), NAMES, fuse_activation=True)
    x = torch.randn(4, 1, 16, 16)
    with use_branch(model, "mt"):
        torch.testing.assert_close(model(x), plain(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("act", [nn.ReLU(), nn.SiLU(), nn.Identity()], ids=["relu", "silu", "none"])
@pytest.mark.parametrize("fuse_activation", [True, False])
def test_norms_with_an_activation_inside(act, fuse_activation):
    plain = nn.Sequential(nn.Conv2d(2, 3, 1), BatchNormAct2d(3, copy.deepcopy(act)))
    model = convert_multi_bn(copy.deepcopy(plain), NAMES, fuse_activation=fuse_activation)
    assert model[1].activation == ("relu" if fuse_activation and isinstance(act, nn.ReLU) else None)
    assert set(plain.state_dict()) <= set(model.state_dict())
    with use_branches(model.eval(), {"main": 1, "mt": 3}):
        torch.testing.assert_close(model(X), plain.eval()(X))
    stripped = strip_branches(model, "mt")
    assert repr(stripped) == repr(plain)
    torch.testing.assert_close(stripped(X), plain(X))


def test_a_relu_asked_for_by_the_user_survives_stripping():
    layer = MultiBatchNorm2d(2, activation="relu").eval()
    layer.bias.data.fill_(-0.5)
    model = nn.ModuleDict({"a": nn.Sequential(nn.Conv2d(2, 2, 1), layer), "b": layer}).eval()
    expected = layer(X)
    assert expected.min() == 0
    strip_branches(model)
    assert model["a"][1] is model["b"]
    assert [type(module) for module in model["b"]] == [nn.BatchNorm2d, nn.ReLU]
    torch.testing.assert_close(model["b"](X), expected)
    alone = strip_branches(MultiBatchNorm2d(2, activation="relu"))
    assert [type(module) for module in alone] == [nn.BatchNorm2d, nn.ReLU]


@pytest.mark.parametrize("training", [True, False])
def test_modules_put_in_and_taken_out_keep_the_mode(training):
    model = nn.Sequential(nn.BatchNorm2d(2), nn.ReLU(), MultiBatchNorm2d(2, branches=NAMES, activation="relu"))
    convert_multi_bn(model.train(training), NAMES, fuse_activation=True)
    assert [module.training for module in model.modules()] == [training] * len(list(model.modules()))
    strip_branches(model)
    assert [type(module) for module in model] == [nn.BatchNorm2d, nn.ReLU, nn.Sequential]
    assert [module.training for module in model.modules()] == [training] * 6


def test_branch_parameters():
    model = convert_multi_bn(network(), NAMES)
    assert list(branch_parameters(model, "st")) == [
        value for layer in (model[1], model[6]) for value in (layer.aux_bn[0].weight, layer.aux_bn[0].bias)
    ]
    assert [id(parameter) for parameter in branch_parameters(model, 0)] == [
        id(value) for layer in (model[1], model[6]) for value in (layer.weight, layer.bias)
    ]
    # At once, before somebody iterates.
    with pytest.raises(ValueError, match="'adv' is unknown"):
        branch_parameters(model, "adv")
    with pytest.raises(ValueError, match="Linear has no multi-branch batch norm"):
        branch_parameters(nn.Linear(2, 2), "adv")


def test_layers_of_a_subclass_are_not_stripped_of_what_they_add():
    model = convert_multi_bn(network(), NAMES, fuse_activation=True)
    parametrize.register_parametrization(model[6], "weight", nn.Softplus())
    text = repr(model)
    with pytest.raises(TypeError, match="cannot strip a ParametrizedMultiBatchNorm1d: expected MultiBatchNorm1d"):
        strip_branches(model, "st")
    assert repr(model) == text
    parametrize.remove_parametrizations(model[6], "weight")
    assert type(strip_branches(model, "st")[6]) is nn.BatchNorm1d


def test_converting_again_is_idempotent_for_the_same_branches_only():
    model = convert_multi_bn(network(), NAMES)
    text = repr(model)
    assert repr(convert_multi_bn(model, NAMES)) == text
    with pytest.raises(ValueError, match="strip_branches"):
        convert_multi_bn(model, ("main", "adv"))


@pytest.mark.parametrize(
    "norm", [nn.SyncBatchNorm(4), nn.LazyBatchNorm2d(), type("GhostBatchNorm", (nn.BatchNorm2d,), {})(4)]
)
def test_other_batch_norms_are_refused_and_nothing_is_converted(norm):
    model = nn.Sequential(nn.BatchNorm2d(4), norm)
    with pytest.raises(TypeError, match=type(norm).__name__):
        convert_multi_bn(model, NAMES)
    assert type(model[0]) is nn.BatchNorm2d


def test_a_model_without_batch_norm_is_refused():
    with pytest.raises(ValueError, match="no batch norm to convert"):
        convert_multi_bn(nn.Sequential(nn.Linear(2, 2), nn.InstanceNorm2d(2)), NAMES)
    with pytest.raises(TypeError, match="branches"):
        convert_multi_bn(nn.BatchNorm2d(2), "main")
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got list"):
        convert_multi_bn([nn.BatchNorm2d(2)], NAMES)
    with pytest.raises(ValueError, match="'adv' is unknown"):
        strip_branches(MultiBatchNorm2d(2), "adv")
