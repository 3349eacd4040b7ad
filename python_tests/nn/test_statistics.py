"""Running statistics of averaged models, estimated branch by branch."""

import copy

import pytest
import torch
from nn.norm_layers import randomize
from torch import nn
from torch.optim.swa_utils import update_bn

from mdprop_ext.attacks import PGD
from mdprop_ext.nn import MultiBatchNorm2d, convert_multi_bn, strip_branches, update_branch_statistics

NAMES = ("main", "adv", "far")


def network(classes=2):
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(48), nn.Linear(48, classes)
    )
    model = randomize(convert_multi_bn(plain, NAMES))
    for name, counter in model.named_buffers():
        if name.endswith("num_batches_tracked"):
            counter.fill_(4)
    return model


def loader(shift=0.0, batches=3):
    generator = torch.Generator().manual_seed(5)
    return [(torch.rand(7, 1, 6, 6, generator=generator) + shift, torch.arange(7) % 2) for _ in range(batches)]


def test_each_branch_equals_the_update_of_its_plain_network():
    model = network()
    before = copy.deepcopy(model.state_dict())
    data = {"main": loader(), "far": loader(3.0, batches=5)}
    flags = [(module, module.training) for module in model.eval().modules()]
    update_branch_statistics(model, data)
    assert all(module.training == training for module, training in flags)
    assert model[1].momentum == 0.1
    for name, batches in data.items():
        plain = strip_branches(copy.deepcopy(model), name)
        expected = copy.deepcopy(plain)
        expected[1].reset_running_stats()
        update_bn(batches, expected)
        for key, value in expected.state_dict().items():
            torch.testing.assert_close(plain.state_dict()[key], value, msg=lambda text, key=key: f"{key}: {text}")
    assert int(model[1].num_batches_tracked) == 3
    kept = [key for key in before if ".aux_bn.0." in key or "weight" in key or "bias" in key]
    assert len(kept) == 22
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in kept)


def test_batches_may_be_made_by_attacking_the_model():
    model = network().eval()
    before = copy.deepcopy(model.state_dict())
    attack = PGD(model, eps=0.1, steps=1, random_start=False, branch="adv")
    expected = [attack(images, labels) for images, labels in loader()]

    def attacked():
        for index, (images, labels) in enumerate(loader()):
            assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
            batch = attack(images, labels)
            assert torch.equal(batch, expected[index])
            yield batch

    update_branch_statistics(model, {1: attacked()})
    assert not torch.equal(model[1].aux_bn[0].running_mean, before["1.aux_bn.0.running_mean"])


def test_dropout_acts_as_its_own_flag_says():
    results = []
    for training in (True, False, False):
        model = nn.Sequential(nn.Dropout(0.5), MultiBatchNorm2d(1)).train(training)
        update_branch_statistics(model, {"main": loader()})
        results.append(model[1].running_mean)
    assert torch.equal(results[1], results[2])
    assert not torch.equal(results[0], results[1])


def test_layers_without_running_statistics_are_passed_over():
    model = nn.Sequential(MultiBatchNorm2d(1, track_running_stats=False), MultiBatchNorm2d(1), MultiBatchNorm2d(1))
    frozen = randomize(model[2])
    frozen.track_running_stats = False
    before = copy.deepcopy(frozen.state_dict())
    update_branch_statistics(model, {"aux1": loader()}, device="cpu")
    assert int(model[1].aux_bn[0].num_batches_tracked) == 3
    assert all(torch.equal(value, before[key]) for key, value in frozen.state_dict().items())


def test_batches_are_put_on_the_device():
    model, seen = MultiBatchNorm2d(1, device="meta"), []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].device.type))
    update_branch_statistics(model, {"main": loader(), "aux1": [loader()[0][0]]}, device="meta")
    assert seen == ["meta"] * 4


def failing():
    yield from loader(batches=1)
    raise KeyError("the disk is gone")


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ({"adv": []}, ValueError, "expected one batch at least for branch 'adv', got none"),
        ({"other": loader()}, ValueError, "'other' is unknown"),
        ({"adv": failing()}, KeyError, "the disk is gone"),
        ({"adv": [torch.zeros(2, 5, 6, 6)]}, RuntimeError, "channels"),
    ],
)
def test_a_failure_changes_nothing(batches, error, message):
    model = network()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        update_branch_statistics(model, batches)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert (model[1].momentum, model[1].route) == (0.1, None)


def test_a_model_without_branches():
    with pytest.raises(ValueError, match="no multi-branch batch norm"):
        update_branch_statistics(nn.BatchNorm2d(1), {"main": loader()})
