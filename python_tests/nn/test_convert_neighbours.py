"""What conversion and stripping do to the modules around batch norms: skipped ones, instance norms, hooks, peers."""

import copy
import warnings

import pytest
import torch
from nn.norm_layers import randomize
from nn.peer_layers import BatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mdprop_ext.nn import MultiBatchNorm2d, backbones, convert_multi_bn, strip_branches, use_branch

NAMES = ("main", "adv")
pytestmark = pytest.mark.filterwarnings("ignore:fuse_activation=True found no ReLU")


@pytest.mark.parametrize(
    ("norm", "instance_norm", "shape"),
    [
        (nn.BatchNorm1d, nn.InstanceNorm1d, (4, 3, 5)),
        (nn.BatchNorm2d, nn.InstanceNorm2d, (4, 3, 5, 5)),
        (nn.BatchNorm3d, nn.InstanceNorm3d, (4, 3, 2, 5, 5)),
    ],
)
def test_instance_norms_are_never_touched(norm, instance_norm, shape):
    plain = nn.Sequential(norm(3), instance_norm(3, affine=True, track_running_stats=True), nn.ReLU())
    model = convert_multi_bn(copy.deepcopy(plain), NAMES, fuse_activation=True)
    assert type(model[1]) is instance_norm
    assert list(model[1].state_dict()) == list(plain[1].state_dict())
    assert type(model[2]) is nn.ReLU
    x = torch.randn(shape)
    for _ in range(2):
        torch.testing.assert_close(model(x), plain(x))
    torch.testing.assert_close(model[1].running_var, plain[1].running_var)
    stripped = strip_branches(model)
    assert [type(module) for module in stripped] == [type(module) for module in plain]
    torch.testing.assert_close(stripped.eval()(x), plain.eval()(x))


def test_skipped_modules_stay_plain_with_all_that_they_hold():
    model = backbones.resnet18()
    odd = model.layer4[0].bn1 = type("GhostBatchNorm", (nn.BatchNorm2d,), {})(512)
    shared = model.layer1[0].bn1 = model.bn1
    convert_multi_bn(model, NAMES, fuse_activation=True, skip=("layer2", "layer4", "bn1"))
    kinds = {name: type(module) for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    plain = {name for name, kind in kinds.items() if kind is nn.BatchNorm2d and "aux_bn" not in name}
    assert {name.split(".")[0] for name in plain} == {"bn1", "layer2", "layer4"}
    assert {name.split(".")[0] for name, kind in kinds.items() if kind is MultiBatchNorm2d} == {"layer1", "layer3"}
    assert (type(odd).__name__, type(shared), type(model.act1)) == ("GhostBatchNorm", nn.BatchNorm2d, nn.ReLU)
    with pytest.raises(ValueError, match=r"skip: expected names of modules of the model, got 'layer9'"):
        convert_multi_bn(backbones.conv4(), NAMES, skip=["layer9"])
    with pytest.raises(TypeError, match="skip: expected names"):
        convert_multi_bn(backbones.conv4(), NAMES, skip="fc")
    with pytest.raises(ValueError, match="no batch norm to convert"):
        convert_multi_bn(backbones.conv4(), NAMES, skip=["features"])


@pytest.mark.parametrize("fuse_activation", [True, False])
def test_norms_with_drop_and_activation(fuse_activation):
    class Halve(nn.Module):
        def forward(self, input):
            return input.clamp(max=1) / 2 - 0.25

    plain = nn.Sequential(nn.Conv2d(2, 3, 1), randomize(BatchNormAct2d(3, nn.ReLU(inplace=True), drop=Halve())))
    model = convert_multi_bn(copy.deepcopy(plain), NAMES, fuse_activation=fuse_activation)
    assert model[1].activation is None  # the drop stands between norm and activation
    x = torch.randn(4, 2, 5, 5)
    with use_branch(model, "adv"):
        torch.testing.assert_close(model(x), plain(x))
    stripped = strip_branches(model, "adv")
    assert repr(stripped) == repr(plain)
    torch.testing.assert_close(stripped.eval()(x), plain.eval()(x))


def test_every_kind_of_hook_goes_on_through_conversion_and_back():
    calls = []

    def note(kind):
        return lambda *_: calls.append(kind)

    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    model[1].register_forward_pre_hook(note("before"))
    model[1].register_forward_hook(note("after"))
    model[1].register_full_backward_pre_hook(note("backward before"))
    model[1].register_full_backward_hook(note("backward after"))
    model[1].register_state_dict_post_hook(lambda *_: calls.append("saved"))
    model[1].register_load_state_dict_post_hook(note("loaded"))
    for change in (lambda: convert_multi_bn(model, NAMES), lambda: strip_branches(model)):
        change()
        calls.clear()
        model(torch.randn(4, 2, 3, 3)).sum().backward()
        model.load_state_dict(model.state_dict())
        assert calls == ["before", "after", "backward before", "backward after", "saved", "loaded"]


def test_a_stripped_norm_folds_into_its_convolution():
    model = randomize(convert_multi_bn(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)), NAMES)).eval()
    x = torch.randn(4, 2, 5, 5)
    with use_branch(model, "adv"):
        expected = model(x)
    stripped = strip_branches(model, "adv")
    torch.testing.assert_close(fuse_conv_bn_eval(*stripped)(x), expected, atol=1e-5, rtol=1e-4)


def test_libraries_that_freeze_batch_norms_by_class_name_freeze_ours():
    model = convert_multi_bn(backbones.conv4(), NAMES).train()
    for module in model.modules():
        if "BatchNorm" in type(module).__name__:
            module.eval()
    before = copy.deepcopy(model.state_dict())
    for branch in NAMES:
        with use_branch(model, branch):
            model(torch.randn(2, 1, 16, 16))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_torchattacks_itself_leaves_the_statistics_alone():
    torchattacks = pytest.importorskip("torchattacks")
    model = nn.Sequential(convert_multi_bn(nn.Sequential(nn.BatchNorm2d(3)), NAMES), nn.Flatten(), nn.Linear(48, 2))
    attack = torchattacks.PGD(model.train(), eps=8 / 255, steps=2)
    attack.set_model_training_mode(model_training=True, batchnorm_training=False)
    before = copy.deepcopy(model.state_dict())
    x, y = torch.rand(4, 3, 4, 4), torch.tensor([0, 1, 0, 1])
    with use_branch(model, "adv"):
        adversarial = attack(x, y)
    assert 0 < float((adversarial - x).abs().max()) <= 8 / 255 + 1e-6
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class SharedReLU(nn.Module):
    """A block whose forward calls one ReLU behind both norms, as torchvision's do."""

    def __init__(self):
        super().__init__()
        self.bn1, self.bn2, self.relu = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.ReLU()

    def forward(self, x):
        return self.relu(self.bn2(self.relu(self.bn1(x))))


@pytest.mark.parametrize("make", [SharedReLU, lambda: nn.Sequential(nn.BatchNorm2d(3), nn.SiLU())])
def test_a_warning_tells_if_nothing_was_fused(make):
    with pytest.warns(UserWarning, match="fuse_activation=True found no ReLU of (SharedReLU|Sequential)") as caught:
        convert_multi_bn(make(), NAMES, fuse_activation=True)
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert_multi_bn(make(), NAMES)
        model = convert_multi_bn(
            nn.Sequential(make(), nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())), NAMES, fuse_activation=True
        )
        convert_multi_bn(model, NAMES, fuse_activation=True)
