"""Whole models whose statistics are those of all processes: conversion, and training by DistributedDataParallel."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from distributed import run_on_ranks
from nn.norm_layers import CHANNELS
from torch import distributed as dist
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
from mdprop_ext.nn.convert_sync import without_sync

STEPS = 3


def network(sync):
    """A network of two branches with fused activations, trained once so that its statistics are its own."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3), nn.Flatten()
    ).double()
    model(torch.randn(8, 2, 3, 3, dtype=torch.float64))
    convert_multi_bn(model, ("clean", "adv"), fuse_activation=True)
    return convert_sync(model) if sync else model


def batches(step):
    """Clean images and attacked ones, 7 in all."""
    generator = torch.Generator().manual_seed(step)
    clean, noise = (torch.randn(7, 2, 3, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    return clean, clean + noise


def fit(model, rows, passes, scale):
    """Some steps on these rows of all batches, in one pass over clean and attacked images or in one pass each."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(STEPS):
        clean, attacked = (images[rows] for images in batches(step))
        if passes == "one":
            with use_branches(model, {"clean": len(clean), "adv": len(attacked)}):
                features = model(torch.cat([clean, attacked]))
        else:
            with use_branch(model, "clean"):
                clean_features = model(clean)
            with use_branch(model, "adv"):
                features = torch.cat([clean_features, model(attacked)])
        optimizer.zero_grad()
        (features[:, ::2].square().sum() * scale).backward()
        optimizer.step()
    return copy.deepcopy(model.state_dict())


SETTINGS = [(passes, broadcast) for passes in ("one", "two") for broadcast in (True, False)]


def fit_shares(rank, sync):
    """Training by DistributedDataParallel, on 3 rows and 4, in every setting."""
    states = []
    for passes, broadcast in SETTINGS:
        model = DistributedDataParallel(network(sync), broadcast_buffers=broadcast)
        # The wrapper averages what it should add up.
        fit(model, (slice(3), slice(3, 7))[rank], passes, scale=2 / 7)
        states.append(copy.deepcopy(model.module.state_dict()))
    return states


def test_synchronised_training_equals_one_process():
    ranks = run_on_ranks(fit_shares, 2, True)
    expected = fit(network(sync=False), slice(7), "one", scale=1 / 7)
    for rank in ranks:
        for state in rank:
            torch.testing.assert_close(dict(state), dict(expected), rtol=1e-9, atol=1e-12)


def test_unsynchronised_training_takes_one_pass_or_two():
    """Two passes before one backward give what the fused one gives, whether or not buffers are broadcast."""
    first, second = run_on_ranks(fit_shares, 2, False)
    for rank in (first, second):
        for state in rank:
            for name, parameter in network(sync=False).named_parameters():
                torch.testing.assert_close(state[name], rank[0][name], rtol=1e-9, atol=1e-12)
                assert not torch.equal(state[name], parameter)
    for state, other in zip(first, second, strict=True):
        assert torch.equal(state["0.weight"], other["0.weight"])
        assert not torch.equal(state["1.aux_bn.0.running_mean"], other["1.aux_bn.0.running_mean"])


@pytest.mark.parametrize("training", [True, False])
def test_gradients_survive_a_broadcast_of_buffers(training):
    """DistributedDataParallel writes buffers at the beginning of every pass, which earlier ones must not need."""
    model = network(sync=False).train(training)
    gradients = []
    for write in (False, True):
        model.zero_grad()
        with use_branch(model, "adv"):
            loss = model(batches(0)[0]).square().sum()
        if write:
            torch.autograd.graph.increment_version(list(model.buffers()))
        loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_conversion_reaches_every_layer_and_can_be_undone():
    model = convert_multi_bn(backbones.conv4(), ("clean", "adv"), fuse_activation=True)
    text, keys, modules = repr(model), list(model.state_dict()), list(model.modules())
    assert convert_sync(model) is model
    assert repr(model).count("sync=True") == text.count("branches=") == 4
    assert list(model.state_dict()) == keys
    assert all(one is other for one, other in zip(model.modules(), modules, strict=True))
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert repr(copied) == repr(model)
    assert repr(convert_sync(model, sync=False)) == text


def test_stripped_layers_are_plain_and_unsynchronised():
    plain = backbones.conv4()
    stripped = strip_branches(convert_sync(convert_multi_bn(copy.deepcopy(plain), ("main", "adv"))))
    assert repr(stripped) == repr(plain)
    assert not any({"sync", "process_group"} & vars(module).keys() for module in stripped.modules())


def test_sync_is_an_option_of_the_layer():
    layer = MultiBatchNorm2d(CHANNELS, activation="relu", sync=True)
    assert (layer.sync, layer.process_group) == (True, None)
    assert repr(layer).partition("\n  (aux_bn)")[0].endswith("sync=True, activation='relu'")
    model = nn.Sequential(layer, MultiBatchNorm2d(CHANNELS))
    seen = []
    layer.register_forward_pre_hook(lambda layer, _: seen.append(layer.sync))
    with pytest.raises(ValueError, match="4D"), without_sync(model):
        model(torch.zeros(2, CHANNELS))
    assert (seen, layer.sync, model[1].sync) == ([False], True, False)


def keep_the_group(rank):
    group = dist.new_group([0, 1])
    model = convert_sync(network(sync=False), group)
    for owner in (model, copy.deepcopy(model), copy.copy(model)):
        assert [layer.process_group is group for layer in (owner[1], owner[4])] == [True, True]
    copied = copy.deepcopy(model)
    assert copied[1].weight is not model[1].weight
    assert copied[1].aux_bn[0].running_mean.data_ptr() != model[1].aux_bn[0].running_mean.data_ptr()
    assert check_model(model) == []
    with pytest.raises(ValueError, match="process_group: expected None with sync=False"):
        MultiBatchNorm2d(CHANNELS, process_group=group)
    with pytest.raises(ValueError, match="process_group: expected None with sync=False"):
        convert_sync(model, group, sync=False)
    with pytest.raises(TypeError, match="sync: expected True or False, got ProcessGroup"):
        convert_sync(model, sync=group)
    convert_sync(model, sync=False)
    assert all(module.process_group is None for module in model if isinstance(module, nn.BatchNorm2d))


def test_the_group_is_kept():
    run_on_ranks(keep_the_group, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sync": "yes"}, "sync: expected True or False, got str"),
        ({"sync": 1}, "sync: expected True or False, got int"),
        ({"sync": None}, "sync: expected True or False, got NoneType"),
        ({"sync": True, "process_group": "world"}, "process_group: expected a .*ProcessGroup or None, got str"),
        ({"sync": True, "process_group": -100.0}, "process_group: expected a .*ProcessGroup or None, got float"),
    ],
)
def test_wrong_options_are_refused_by_layers_and_conversion(options, message):
    model = nn.Sequential(MultiBatchNorm2d(CHANNELS))
    with pytest.raises(TypeError, match=message):
        convert_sync(model, **options)
    assert (model[0].sync, model[0].process_group) == (False, None)
    with pytest.raises(TypeError, match=message):
        MultiBatchNorm2d(CHANNELS, **options)


def test_without_distributed_training_in_torch_there_is_no_group(monkeypatch):
    monkeypatch.delattr(dist, "ProcessGroup")
    monkeypatch.setattr(dist, "is_available", lambda: False)
    model = nn.Sequential(MultiBatchNorm2d(CHANNELS))
    assert convert_sync(model)[0].sync
    with pytest.raises(TypeError, match=r"process_group: expected a .*ProcessGroup or None, got str"):
        convert_sync(model, "world")


def test_a_model_without_branches_is_refused():
    with pytest.raises(ValueError, match=r"call convert_multi_bn\(model, branches\) first"):
        convert_sync(nn.Sequential(nn.BatchNorm2d(2)))


def test_torch_cannot_drop_the_branches_by_its_own_conversion():
    for model in (network(sync=False), MultiBatchNorm2d(CHANNELS)):
        with pytest.raises(TypeError, match=r"mdprop_ext.nn.convert_sync\(model\) instead"):
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
    with pytest.raises(TypeError, match="convert_multi_bn on the network as it was"):
        convert_multi_bn(nn.SyncBatchNorm.convert_sync_batchnorm(backbones.conv4()), ("clean", "adv"))
