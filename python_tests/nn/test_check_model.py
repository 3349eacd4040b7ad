"""Each hazard is found, with its place and a way out, and nothing is found where all is well."""

from __future__ import annotations

import copy
import itertools
import warnings

import pytest
import torch
from distributed import run_on_ranks
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mdprop_ext.nn import (
    MultiBatchNorm2d,
    backbones,
    check_model,
    convert_multi_bn,
    convert_sync,
    strip_branches,
    use_branch,
    use_branches,
)

BRANCHES = ("clean", "adv")


def network(**options):
    """Two multi-branch layers, called "1" and "3"."""
    layers = [MultiBatchNorm2d(2, branches=BRANCHES, **options) for _ in range(2)]
    return nn.Sequential(nn.Conv2d(2, 2, 1), layers[0], nn.ReLU(), layers[1])


def trained(model, sizes=(3, 3)):
    with use_branches(model, dict(zip(BRANCHES, sizes, strict=True))):
        model(torch.randn(sum(sizes), 2, 3, 3))
    return model


def lose_branches_to_torch(model):
    """What torch's conversion makes of layers with one branch, whose container is empty; no other container lets it."""
    model[1] = nn.SyncBatchNorm(2)
    model[1].add_module("aux_bn", copy.deepcopy(model[3].aux_bn))


def enter_route(model):
    model.context = use_branch(model[1], "adv")  # or it would be left at once
    model.context.__enter__()


def set_all(name, value):
    def change(model):
        for layer in (model[1], model[3]):
            setattr(layer, name, value)

    return change


def fill(name, value):
    def change(model):
        with torch.no_grad():
            model[3].aux_bn[0].get_buffer(name)[1].fill_(value)

    return change


BOTH = ("1", "3")
HAZARDS = {
    "branches lost": (lose_branches_to_torch, ("1",), "SyncBatchNorm that holds branches", "convert_sync(model)"),
    "SyncBatchNorm beside": (
        lambda model: model.append(nn.SyncBatchNorm(2)),
        ("4",),
        "SyncBatchNorm beside",
        "leave out convert_sync_batchnorm",
    ),
    "plain beside": (
        lambda model: model.append(nn.BatchNorm2d(2)),
        ("4",),
        "BatchNorm2d beside",
        "convert_multi_bn(model, branches)",
    ),
    "different branches": (
        lambda model: setattr(model[1], "branches", ("adv", "clean")),
        BOTH,
        "('adv', 'clean') and ('clean', 'adv')",
        "in the same order",
    ),
    "different routes": (enter_route, BOTH, "different routes", "the whole model"),
    "some synchronise": (lambda model: convert_sync(model[3]), BOTH, "some do not", "convert_sync(model)"),
    "branch never trained": (lambda model: trained(model, (4, 0)), BOTH, "branch 'adv' was never", "use_branch(model"),
    "main never trained": (lambda model: trained(model, (0, 4)), BOTH, "branch 'clean' was never", "'clean'"),
    "mean not finite": (fill("running_mean", float("nan")), ("3",), "of branch 'adv' are not finite", "reset_running"),
    "variance not finite": (fill("running_var", float("inf")), ("3",), "of branch 'adv' are not finite", "reset_"),
    "variance of 0": (fill("running_var", 0.0), ("3",), "variance of 0", "constant"),
    "left in training": (lambda model: model.eval()[3].train(), ("3",), "in training mode", "model.eval()"),
    "half": (lambda model: model.bfloat16(), BOTH, "statistics in bfloat16", "autocast"),
    "momentum 0": (set_all("momentum", 0.0), BOTH, "momentum 0", "eval()"),
    "untracked": (set_all("track_running_stats", False), BOTH, "no running statistics", "track_running_stats=True"),
}


@pytest.mark.parametrize("hazard", HAZARDS)
def test_a_hazard_is_found_with_its_place_and_a_way_out(hazard):
    change, where, what, advice = HAZARDS[hazard]
    model = network()
    assert check_model(model) == []
    change(model)
    (found,) = check_model(model)
    assert found.where == where
    assert what in found.what
    assert advice in found.advice
    for name in found.where:
        model.get_submodule(name)


def parallel_hazards(rank):
    """What is found with (sync, broadcast_buffers)."""
    found = {}
    for sync, broadcast in itertools.product((True, False), repeat=2):
        model = convert_sync(network(), sync=sync)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            found[sync, broadcast] = check_model(DistributedDataParallel(model, broadcast_buffers=broadcast))
    return found


def test_unsynchronised_statistics_under_data_parallel():
    (hazards,) = run_on_ranks(parallel_hazards, 1)
    (found,) = hazards.pop((False, True))
    assert found.where == ("",)
    assert "those of the first process" in found.what
    assert list(hazards.values()) == [[], [], []]


@pytest.mark.parametrize("make", [backbones.conv4, backbones.resnet18])
def test_sound_models_have_none(make):
    model = make(in_channels=2)
    assert check_model(model) == []
    convert_multi_bn(model, BRANCHES, fuse_activation=True)
    for stage in (model, model.eval(), model.train(), convert_sync(model), trained_backbone(model), model.eval()):
        assert check_model(stage) == []
    assert check_model(strip_branches(model, "adv")) == []


def trained_backbone(model):
    model.train()
    with use_branches(model, torch.tensor([0, 1, 1, 0])):
        model(torch.randn(4, 2, 32, 32)).sum().backward()
    return model


def test_frozen_layers_and_whole_routes_are_no_hazard():
    model = trained(network())
    model[1].eval()
    with use_branch(model, "adv"):
        assert check_model(model) == []


def test_what_torch_makes_of_a_layer_with_one_branch():
    """Torch's conversion cannot be stopped there, for its container is empty."""
    model = nn.Sequential(MultiBatchNorm2d(2, num_branches=1, activation="relu"))
    (found,) = check_model(nn.SyncBatchNorm.convert_sync_batchnorm(model))
    assert (found.where, "never uses them" in found.what) == (("0",), True)


def test_copies_on_several_cards_are_a_hazard():
    assert check_model(nn.DataParallel(nn.BatchNorm2d(2))) == []
    (found,) = check_model(nn.DataParallel(network()))
    assert (found.where, "a mixed route does not fit" in found.what) == (("",), True)


def test_values_that_do_not_exist_are_not_judged():
    with torch.device("meta"):
        model = network()
        with use_branches(model, {"clean": 2, "adv": 2}):
            assert check_model(model) == []
    (found,) = check_model(model.append(nn.BatchNorm2d(2)))
    assert "BatchNorm2d beside" in found.what
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got OrderedDict"):
        check_model(model.state_dict())


def test_nothing_is_changed():
    model = trained(network(), (4, 0))
    before = copy.deepcopy(model.state_dict())
    check_model(model)
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)


def test_hazards_read_as_sentences():
    model = convert_multi_bn(backbones.conv4(), BRANCHES)
    for layer in model.modules():
        if isinstance(layer, MultiBatchNorm2d):
            layer.momentum = 0.0
    names = [name for name, layer in model.named_modules() if isinstance(layer, MultiBatchNorm2d)]
    text = "momentum 0 never updates the running statistics; set a momentum, or freeze the layer by eval()"
    assert repr(check_model(model)) == f"[{', '.join(names[:3])} and 1 more: {text}]"
    assert repr(check_model(MultiBatchNorm2d(2, momentum=0.0))[0]) == f"the model itself: {text}"
