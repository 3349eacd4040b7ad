"""Saving and copying: safetensors, state dicts without code, pickles and copies of whole models."""

import copy
import io

import pytest
import torch
from nn.norm_layers import randomize
from nn.peer_layers import BatchNormAct2d
from torch import nn

from mdprop_ext.nn import MultiBatchNorm2d, backbones, convert_multi_bn, export_state_dict, use_branch, use_branches

NAMES = ("main", "adv", "far")


class Model(nn.Module):
    """Converted and handwritten layers, a shared affine, a layer under two names, and a norm with an activation."""

    def __init__(self):
        super().__init__()
        self.stem = convert_multi_bn(nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.ReLU()), NAMES)
        self.shared_affine = MultiBatchNorm2d(3, branches=NAMES, share_affine=True, activation="relu")
        self.first = self.second = MultiBatchNorm2d(3, branches=NAMES, momentum=None)
        self.act = convert_multi_bn(BatchNormAct2d(3, nn.SiLU()), NAMES)

    def forward(self, input):
        return self.act(self.second(self.first(self.shared_affine(self.stem(input)))))


X = torch.randn(6, 2, 3, 3, generator=torch.Generator().manual_seed(4))


def trained():
    torch.manual_seed(0)
    model = randomize(Model())
    with use_branches(model, {"main": 2, "far": 4}):
        model(X)
    return model


def assert_same(model, other):
    assert list(other.state_dict()) == list(model.state_dict())
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    assert other.first is other.second
    for name in NAMES:
        with use_branch(model.eval(), name), use_branch(other.eval(), name):
            assert torch.equal(other(X), model(X))


def test_safetensors_of_a_model(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    model, other = trained(), Model()
    safetensors.save_model(model, tmp_path / "model.safetensors")
    # Not strict for counters of a module under two names, which torch fills in, as those of a plain batch norm.
    missing, unexpected = safetensors.load_model(other, tmp_path / "model.safetensors", strict=False)
    assert not missing
    assert all(name.startswith("second.") and name.endswith("num_batches_tracked") for name in unexpected)
    assert_same(model, other)


@pytest.mark.parametrize("layout", ["timm", "mdprop"])
def test_safetensors_of_an_exported_shared_affine(tmp_path, layout):
    safetensors = pytest.importorskip("safetensors.torch")
    exported = export_state_dict(trained().shared_affine, layout=layout)
    safetensors.save_file(exported, tmp_path / "layer.safetensors")
    loaded = safetensors.load_file(tmp_path / "layer.safetensors")
    assert loaded.keys() == exported.keys()
    assert all(torch.equal(value, exported[name]) for name, value in loaded.items())


def test_safetensors_of_a_shared_affine_are_strict(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    model, other = trained().shared_affine, Model().shared_affine
    safetensors.save_file(model.state_dict(), tmp_path / "layer.safetensors")
    safetensors.load_model(other, tmp_path / "layer.safetensors")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def test_state_dicts_load_without_running_code():
    model, other, file = trained(), Model(), io.BytesIO()
    with use_branch(model, "adv"):
        torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert_same(model, other)


def test_whole_models_are_pickled_and_copied():
    model, file = trained(), io.BytesIO()
    with use_branches(model, {"main": 2, "adv": 4}):
        torch.save(model, file)
        copied = copy.deepcopy(model)
    file.seek(0)
    for other in (copied, torch.load(file, weights_only=False)):
        assert_same(model, other)
        assert [module.route for module in other.modules() if isinstance(module, MultiBatchNorm2d)] == [None] * 4
        tensors = {value.data_ptr() for value in other.state_dict().values()}
        assert not tensors & {value.data_ptr() for value in model.state_dict().values()}


def test_a_model_without_memory_is_filled_from_a_checkpoint():
    model = convert_multi_bn(backbones.conv4(), NAMES)
    with torch.device("meta"):
        other = convert_multi_bn(backbones.conv4(), NAMES)
    other.load_state_dict(randomize(model).state_dict(), assign=True)
    images = torch.rand(2, 1, 16, 16)
    with use_branch(model.eval(), "far"), use_branch(other.eval(), "far"):
        assert torch.equal(other(images), model(images))
