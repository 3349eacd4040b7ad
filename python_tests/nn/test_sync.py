"""Synchronised layers: processes that share a batch compute what one process computes on all of it."""

from __future__ import annotations

import copy

import pytest
import torch
from distributed import run_on_ranks
from nn.norm_layers import CHANNELS, randomize
from nn.sync_cases import CASES, of_processes, train, train_joined
from torch import distributed as dist
from torch.profiler import profile
from torch.utils.checkpoint import checkpoint

from mdprop_ext.nn import MultiBatchNorm1d, MultiBatchNorm2d, convert_sync, use_branch, use_branches
from mdprop_ext.nn.convert_sync import without_sync


@pytest.fixture(scope="module")
def results():
    """What every process gets from each case."""
    found = {}
    for count in (2, 3):
        ranks = run_on_ranks(train, count, of_processes(count))
        found |= {name: [rank[name] for rank in ranks] for name in of_processes(count)}
    return found


@pytest.mark.parametrize("name", CASES)
def test_processes_equal_one_on_the_joined_batch(results, name):
    tolerance = {"rtol": CASES[name].tolerance, "atol": CASES[name].tolerance}
    expected, ranks = train_joined(name), results[name]
    for key, value in expected["samples"].items():
        joined = torch.cat([rank["samples"][key] for rank in ranks])
        torch.testing.assert_close(joined, value, **tolerance, msg=lambda text, key=key: f"{key}: {text}")
    for key, value in expected["grads"].items():
        # Each process has the part of its own samples.
        parts = [rank["grads"][key] for rank in ranks if rank["grads"][key] is not None]
        total = torch.stack(parts).sum(0) if parts else torch.zeros_like(value)
        torch.testing.assert_close(total, value, **tolerance, msg=lambda text, key=key: f"{key}: {text}")
    for rank in ranks:
        torch.testing.assert_close(dict(rank["state"]), dict(expected["state"]), **tolerance)
        assert all(torch.equal(value, rank["state"][key]) for key, value in ranks[0]["state"].items())


def two_of_three_branches(rank):
    """A layer, and its ids and input in a process of two: one sample of branch 1 in all of them together."""
    layer = MultiBatchNorm1d(CHANNELS, branches=("main", "st", "mt"), sync=True).double()
    return layer, torch.tensor([0, 0] if rank == 0 else [0, 1]), torch.randn(2, CHANNELS, dtype=torch.float64)


def raise_for_one_value(rank):
    layer, ids, x = two_of_three_branches(rank)
    with pytest.raises(ValueError, match="one over all processes in branch 'st'"), use_branches(layer, ids):
        layer(x)
    counters = [int(norm.num_batches_tracked) for norm in (layer, *layer.aux_bn)]
    with use_branches(layer, 2 * ids):
        assert layer.eval()(x).shape == x.shape
    with use_branches(layer.train(), torch.zeros_like(ids)):
        layer(x)
    return counters, layer.running_mean


def test_all_processes_raise_for_one_value_and_can_go_on():
    (counters, mean), (other_counters, other_mean) = run_on_ranks(raise_for_one_value, 2)
    assert counters == other_counters == [0, 0, 0]
    assert torch.equal(mean, other_mean)


def compute_alone(rank):
    """What only the first process computes, so that a collective would wait for the second for ever."""
    layer, ids, x = two_of_three_branches(rank)
    plain = convert_sync(copy.deepcopy(layer), sync=False)
    if rank == 0:
        untracked = MultiBatchNorm1d(CHANNELS, track_running_stats=False, sync=True).double().eval()
        layer.eval()(x).sum().backward()
        untracked(x)
        layer.train()
        with without_sync(layer), use_branches(layer, ids):
            torch.testing.assert_close(layer(x), plain(x))
        assert layer.sync
    group = dist.new_group([0])
    if rank == 0:
        alone = convert_sync(copy.deepcopy(plain), group)
        torch.testing.assert_close(alone(x), plain(x))


def test_evaluation_and_groups_of_one_exchange_nothing():
    run_on_ranks(compute_alone, 2)


def count_collectives(rank):
    layer = MultiBatchNorm2d(CHANNELS, num_branches=3, activation="relu", sync=True)
    x = torch.randn(6, CHANNELS, 3, 3, requires_grad=True)
    with use_branches(layer, {"main": 1, "aux1": 3, "aux2": 2}), profile() as profiler:
        layer(x, residual=x).sum().backward()
    return {event.key: event.count for event in profiler.key_averages() if event.key.startswith("gloo:")}


def test_one_exchange_forward_and_one_backward_for_all_branches():
    assert run_on_ranks(count_collectives, 2) == [{"gloo:all_gather": 1, "gloo:all_reduce": 1}] * 2


def differentiate_twice(rank):
    layer = MultiBatchNorm2d(CHANNELS, sync=True)
    x = torch.randn(4, CHANNELS, 2, 2, requires_grad=True)
    for of in (x, layer.weight):
        (first,) = torch.autograd.grad(layer(x).square().sum(), of, create_graph=True)
        with pytest.raises(NotImplementedError, match="sync=True cannot be differentiated twice"):
            torch.autograd.grad(first.sum(), x)


def test_a_second_derivative_raises():
    run_on_ranks(differentiate_twice, 2)


def train_in_subgroup(rank):
    layer, _, _ = two_of_three_branches(rank)
    convert_sync(layer, dist.new_group([0, 2]))
    x = torch.randn(3 + rank, CHANNELS, dtype=torch.float64)
    return x, layer(x).detach(), layer.running_var


def test_a_group_of_some_processes():
    (x, y, var), (x_outside, y_outside, _), (x_other, y_other, var_other) = run_on_ranks(train_in_subgroup, 3)
    expected = MultiBatchNorm1d(CHANNELS).double()
    torch.testing.assert_close(torch.cat([y, y_other]), expected(torch.cat([x, x_other])))
    torch.testing.assert_close(var, expected.running_var)
    assert torch.equal(var, var_other)
    torch.testing.assert_close(y_outside, MultiBatchNorm1d(CHANNELS).double()(x_outside))


def transform(rank):
    """The gradients of a block as it is, recomputed under checkpointing, and compiled."""
    found = []
    ids = torch.tensor([rank, 0, 1, 1])
    for wrap in ("plain", "checkpointed", "compiled"):
        layer = randomize(MultiBatchNorm2d(CHANNELS, activation="relu", sync=True))
        torch.manual_seed(rank)
        x = torch.randn(4, CHANNELS, 2, 2, requires_grad=True)
        forward = torch.compile(layer, backend="aot_eager", fullgraph=True) if wrap == "compiled" else layer
        with use_branches(layer, ids):
            y = checkpoint(layer, x, use_reentrant=False) if wrap == "checkpointed" else forward(x)
            y.square().sum().backward()
        found.append((y.detach(), x.grad, layer.weight.grad, layer.aux_bn[0].bias.grad))
    return found


def recompute_under_another_route(rank):
    layer = MultiBatchNorm2d(CHANNELS, sync=True)
    x = torch.randn(4, CHANNELS, 2, 2, requires_grad=True)
    with use_branch(layer, "aux1"):
        y = checkpoint(layer, x, use_reentrant=False)
    with use_branch(layer, "main"), pytest.raises(RuntimeError, match="recomputed under another route"):
        y.sum().backward()


def test_a_recomputation_under_another_route_raises():
    run_on_ranks(recompute_under_another_route, 2)


def test_checkpointed_and_compiled_blocks_equal_the_plain_run():
    for plain, *others in run_on_ranks(transform, 2, timeout=60):
        for other in others:
            torch.testing.assert_close(other, plain)


def test_without_processes_the_layer_is_as_before():
    x = torch.randn(4, CHANNELS, 2, 2, requires_grad=True)
    outputs = []
    for sync in (False, True):
        layer = randomize(MultiBatchNorm2d(CHANNELS, sync=sync))
        with use_branches(layer, {"aux1": 2, "main": 2}):
            y = layer(x)
        (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        outputs.append((y, grad, *torch.autograd.grad(grad.square().sum(), x), *layer.buffers()))
    assert all(torch.equal(one, other) for one, other in zip(*outputs, strict=True))
