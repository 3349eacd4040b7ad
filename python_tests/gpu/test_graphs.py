"""CUDA graphs: every op, forward and backward, and a whole attack are captured once and replayed on other values."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from op_cases import OP_CASES
from op_checks import assert_same_bits, raw_args, small, with_gradients
from torch import Tensor, nn

from mdprop_ext import ops
from mdprop_ext.attacks import CrossEntropy, Pixels
from mdprop_ext.attacks.aim import Aim
from mdprop_ext.attacks.engine import Problem, search
from mdprop_ext.attacks.options import AttackOptions
from mdprop_ext.attacks.projections import norm_by_name
from mdprop_ext.nn import use_branch, use_branches

CASES = [pytest.param(case, id=case.name) for case in OP_CASES]


def capture(function: Callable[[], tuple[Tensor, ...]]) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...]]:
    """The graph of a call, and the tensors that each replay fills; they hold no result before the first."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries and allocators are set up outside of the capture
        for _ in range(2):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = function()
    for result in results:
        result.detach().fill_(1)
    return graph, results


@pytest.mark.parametrize("case", CASES)
def test_every_op_is_captured_and_replayed(case):
    for sample in small(case, case.dtypes[0], "cuda"):
        inputs = with_gradients(case, sample)
        arguments = raw_args(case, inputs)
        wanted = [inputs.args[i] for i in case.differentiable if inputs.args[i] is not None]

        def run(arguments=arguments, wanted=wanted):
            results = case.raw(*arguments)
            results = results if isinstance(results, tuple) else (results,)
            if not wanted:
                return results
            gradients = torch.autograd.grad(results[0], wanted, torch.ones_like(results[0]))
            return (*(result.detach() for result in results), *gradients)

        graph, results = capture(run)
        with torch.no_grad():
            x = inputs.args[0]
            x.copy_(x.roll(1, 0))
        graph.replay()
        assert_same_bits(results, run(), sample.name)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_steps_in_place_are_captured(norm):
    origin, gradient = torch.rand(3, 3, 17, 19, device="cuda"), torch.randn(3, 3, 17, 19, device="cuda")
    options = {"norm": norm, "step": 0.1, "radius": 2.0, "decay": 0.9}
    # Each side moves its own point and velocity; those of the graph are moved twice before the first replay.
    (x, velocity), (other, other_velocity) = ((origin.clone(), torch.zeros_like(origin)) for _ in range(2))

    def step():
        return (ops.pgd_step(x, gradient, origin, velocity=velocity, out=x, **options).clone(),)

    graph, results = capture(step)
    x.copy_(origin)
    velocity.zero_()
    for _ in range(3):
        graph.replay()
        ops.pgd_step(other, gradient, origin, velocity=other_velocity, out=other, **options)
    assert_same_bits((*results, x, velocity), (other, other, other_velocity), norm)


def test_a_training_step_is_one_graph(network):
    model, eager = network(), network()
    images, labels = torch.randn(6, 3, 16, 16, device="cuda"), torch.arange(6, device="cuda") % 5
    route = torch.tensor([0, 1, 1, 0, 1, 0], device="cuda")

    def gradients(of: nn.Module) -> tuple[Tensor, ...]:
        used = [parameter for parameter in of.parameters() if parameter.requires_grad]
        return torch.autograd.grad(F.cross_entropy(of(images), labels), used)

    with use_branches(model, route), use_branches(eager, route):
        graph, results = capture(lambda: gradients(model))
        model.load_state_dict(eager.state_dict())  # the running statistics that the capture moved
        images.copy_(torch.randn_like(images))
        graph.replay()
        expected = gradients(eager)
    torch.testing.assert_close(results, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tuple(model.buffers()), tuple(eager.buffers()), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_whole_attack_is_one_graph(network, norm):
    model = network().eval().requires_grad_(False)
    images, labels = torch.rand(6, 3, 16, 16, device="cuda"), torch.arange(6, device="cuda") % 5
    scale = 1.0 if norm == "linf" else 10.0
    options = AttackOptions(eps=8 / 255 * scale, alpha=2 / 255 * scale, steps=10, random_start=False)

    def attack() -> tuple[Tensor, ...]:
        problem = Problem(
            origin=images,
            aim=Aim(images, model=model, objective=CrossEntropy(), parametrisation=Pixels(), targets=labels),
            norm=norm_by_name(norm),
            radius=options.eps,
            step=options.alpha,
            lower=0.0,
            upper=1.0,
        )
        found = search(problem, options, seed=0)
        return found.images, found.values, found.steps

    with use_branch(model, "adv"):
        graph, results = capture(attack)
        images.copy_(torch.rand_like(images))
        labels.copy_(labels.roll(1))
        graph.replay()
        expected = attack()
    # The sign of a gradient near 0 hangs on the order in which libraries add up.
    assert (results[0] - expected[0]).abs().gt(1e-6).float().mean() < 1e-3
    torch.testing.assert_close(results[1:], expected[1:], rtol=1e-4, atol=1e-4)
    assert (results[1] > F.cross_entropy(model(images), labels, reduction="none")).all()


@pytest.mark.parametrize("sizes", [[5, 3, 0], [1, 0, 1, 2, 1, 0, 3]])
def test_sizes_of_branches_known_to_the_host_are_captured(sizes):
    x = torch.randn(8, 4, 6, 6, device="cuda", requires_grad=True)
    weight, bias = (torch.rand(len(sizes), 4, device="cuda") for _ in range(2))

    def run():
        y = ops.multi_batch_norm(x, weight, bias, None, None, branch=sizes, training=True)
        return y.detach(), *torch.autograd.grad(y, [x], torch.ones_like(y))

    graph, results = capture(run)
    graph.replay()
    assert_same_bits(results, run(), "a list of sizes")
