"""Routing contexts: what they set, restore and refuse, under compilation and checkpointing too."""

import itertools

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

from mdprop_ext.nn import MultiBatchNorm1d, MultiBatchNorm2d, branch_names, strip_branches, use_branch, use_branches

NAMES = ("main", "st", "mt")


def small_model(branches=NAMES):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        MultiBatchNorm2d(4, branches=branches),
        nn.Flatten(),
        nn.Linear(36, 3),
        MultiBatchNorm1d(3, branches=branches),
    )
    for index, branch in enumerate(model[1].aux_bn):
        nn.init.constant_(branch.weight, 2.0 + index)
    return model


def routes(model):
    return [layer.route for layer in (model[1], model[4])]


def test_contexts_nest_and_restore_also_after_an_exception():
    model = small_model()
    with use_branch(model, "st"):
        outer = routes(model)
        with use_branches(model, {"main": 1, "mt": 2}):
            assert routes(model)[0].tolist() == [0, 2, 2]
        with pytest.raises(KeyError), use_branch(model, "mt"):
            raise KeyError
        assert all(now is before for now, before in zip(routes(model), outer, strict=True))
        assert int(outer[0]) == 1
    assert routes(model) == [None, None]


def test_layers_share_one_route():
    model = small_model()
    with use_branches(model, {"main": 1}):
        first, second = routes(model)
        assert first is second


def test_names_and_indices_mean_the_same():
    model = small_model().eval()
    x = torch.randn(4, 2, 3, 3)
    outputs = []
    for branch in ("mt", 2):
        with use_branch(model, branch):
            outputs.append(model(x))
    with use_branches(model, torch.full((4,), 2)):
        outputs.append(model(x))
    with use_branches(model, {"mt": 4}):
        outputs.append(model(x))
    assert all(torch.equal(output, outputs[0]) for output in outputs)
    assert not torch.allclose(outputs[0], model(x))


def test_sizes_are_in_the_order_of_the_mapping():
    model = small_model()
    with use_branches(model, {"mt": 2, "main": 0, "st": 1}):
        assert routes(model)[0].tolist() == [2, 2, 1]


def test_changing_the_given_ids_does_not_change_the_route():
    model, ids = small_model(), torch.tensor([0, 1])
    with use_branches(model, ids):
        ids.fill_(7)
        assert routes(model)[0].tolist() == [0, 1]


def test_a_context_entered_in_inference_mode_serves_gradients():
    model = small_model()
    x = torch.randn(4, 2, 3, 3)
    with torch.inference_mode():
        ids = torch.tensor([0, 1, 2, 1])
        for context in (use_branch(model.eval(), "st"), use_branches(model, ids)):
            with context, torch.inference_mode(False):
                model(x.requires_grad_()).sum().backward()
    assert model[1].aux_bn[0].weight.grad.abs().sum() > 0


def test_branch_names():
    assert branch_names(small_model()) == NAMES
    assert branch_names(nn.Linear(2, 2)) == ()


@pytest.mark.parametrize(
    ("branches", "error", "message"),
    [
        ({"adv": 4}, ValueError, "'adv' is unknown"),
        ({"st": -1}, ValueError, "negative"),
        ({"st": 1.5}, TypeError, "whole number"),
        ([4, 0, 0], TypeError, "mapping"),
        (torch.tensor([0, 3]), ValueError, r"in 0\.\.2, got values in 0\.\.3"),
        (torch.tensor([-1, 0]), ValueError, r"in 0\.\.2, got values in -1\.\.0"),
        (torch.tensor([0, 1], dtype=torch.int32), TypeError, "int64"),
        (torch.tensor(1), ValueError, r"shape \[N\]"),
    ],
)
def test_wrong_mixed_routes(branches, error, message):
    model = small_model()
    with pytest.raises(error, match=message), use_branches(model, branches):
        pass
    assert routes(model) == [None, None]


@pytest.mark.parametrize(
    ("branch", "error", "message"),
    [
        ("adv", ValueError, "'adv' is unknown"),
        (3, ValueError, r"0\.\.2"),
        (-1, ValueError, r"0\.\.2"),
        (1.0, TypeError, "name"),
    ],
)
def test_wrong_branches(branch, error, message):
    with pytest.raises(error, match=message), use_branch(small_model(), branch):
        pass


@pytest.mark.parametrize("context", [use_branch, use_branches])
def test_models_that_cannot_be_routed(context):
    route = "st" if context is use_branch else {"st": 4}
    plain = nn.Sequential(nn.BatchNorm2d(3))
    with pytest.raises(ValueError, match="Sequential has no multi-branch"), context(plain, route):
        pass
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got str"), context("model", route):
        pass
    mixture = nn.Sequential(MultiBatchNorm2d(3, branches=("main", "st")), MultiBatchNorm2d(3, branches=NAMES))
    with pytest.raises(ValueError, match="must have the same branches"), context(mixture, route):
        pass


@pytest.mark.parametrize("sizes", [{"main": 3}, {"main": 1}, {"main": 3, "st": 2}, {}])
def test_sizes_that_do_not_match_the_batch(sizes):
    model = small_model()
    with use_branches(model, sizes), pytest.raises(ValueError, match=f"{sum(sizes.values())} branch ids.*4 samples"):
        model(torch.randn(4, 2, 3, 3))


@pytest.mark.parametrize("training", [True, False])
def test_compiled_once_for_each_kind_of_route(training):
    torch._dynamo.reset()
    model, eager = (small_model().train(training).requires_grad_(training) for _ in range(2))
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    whole = [(use_branch, branch) for branch in (0, "st", 2, "main", 1, "mt")]
    mixed = [
        (use_branches, route)
        for route in (
            {"main": 2, "st": 2, "mt": 2},
            {"main": 6},
            {"mt": 4, "st": 2},
            torch.tensor([0, 2, 1, 1, 0, 2]),
            torch.tensor([2, 2, 2, 1, 1, 1]),
            {"st": 3, "main": 3},
        )
    ]
    for index, (context, route) in enumerate(whole + mixed):
        x = torch.randn(6, 2, 3, 3)
        results = []
        for routed, call in ((model, compiled), (eager, eager)):
            with context(routed, route):
                output = call(x)
            results.append(output)
            routed.zero_grad()
            if training:
                output.square().sum().backward()
        torch.testing.assert_close(*results)
        if training:
            grads = [routed[1].aux_bn[0].weight.grad for routed in (model, eager)]
            torch.testing.assert_close(*grads, atol=1e-4, rtol=1e-4)
        assert counter.frame_count == (1 if index < len(whole) else 2)
    for name, value in eager.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)


@pytest.mark.parametrize("route", ["st", {"mt": 1, "main": 0, "st": 3}, torch.tensor([2, 0, 1, 2])], ids=str)
def test_contexts_inside_a_compiled_step(route):
    torch._dynamo.reset()
    model, eager = small_model().eval(), small_model().eval()
    context = use_branch if isinstance(route, str) else use_branches

    def step(x):
        with context(model, route):
            return model(x)

    x = torch.randn(4, 2, 3, 3)
    with context(eager, route):
        expected = eager(x)
    torch.testing.assert_close(torch.compile(step, backend="eager", fullgraph=True)(x), expected)
    assert routes(model) == [None, None]


def test_sizes_inside_a_compiled_step_may_vary():
    torch._dynamo.reset()
    model, eager = small_model(), small_model()
    counter = CompileCounterWithBackend("eager")

    def step(model, clean, other):
        with use_branches(model, {"main": len(clean), "mt": len(other)}):
            return model(torch.cat([clean, other]))

    compiled = torch.compile(lambda *parts: step(model, *parts), backend=counter, fullgraph=True)
    for sizes in ((4, 3), (5, 4), (7, 2), (4, 3)):
        parts = [torch.randn(size, 2, 3, 3) for size in sizes]
        torch.testing.assert_close(compiled(*parts), step(eager, *parts))
    assert counter.frame_count <= 2  # fixed sizes, then any
    torch.testing.assert_close(dict(model.state_dict()), dict(eager.state_dict()))


def test_contexts_where_tensors_have_no_values_by_default():
    with torch.device("meta"):
        model = small_model()
        for context, route in ((use_branch, "st"), (use_branches, {"mt": 3, "main": 1})):
            with context(model, route):
                assert model(torch.empty(4, 2, 3, 3)).shape == (4, 3)


def test_a_layer_without_tensors_is_routed_where_the_others_are():
    bare = MultiBatchNorm2d(3, affine=False, track_running_stats=False)
    model = nn.Sequential(bare, MultiBatchNorm2d(3, device="meta"))
    with use_branches(model, {"main": 1, "aux1": 2}):
        assert bare.route is model[1].route
        assert bare.route.is_meta
    with use_branch(bare, "aux1"):
        assert bare.route.device == torch.device("cpu")


def test_leaving_a_context_sets_nothing_on_stripped_layers():
    model = small_model()
    with use_branch(model, "st"):
        strip_branches(model)
    assert not any("route" in vars(module) for module in model.modules())


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("route", ["st", {"main": 3, "st": 1}])
def test_checkpointed_blocks_recompute_under_the_same_route(route, use_reentrant):
    context = use_branch if isinstance(route, str) else use_branches
    x = torch.randn(4, 2, 3, 3)
    grads = []
    for recompute in (False, True):
        model, inputs = small_model().eval(), x.clone().requires_grad_()
        with context(model, route):
            output = checkpoint(model, inputs, use_reentrant=use_reentrant) if recompute else model(inputs)
            output.square().sum().backward()
        grads.append(inputs.grad)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize(
    ("forward_route", "backward_route"), list(itertools.permutations([None, "st", {"main": 2, "st": 2}, {"mt": 4}], 2))
)
def test_checkpointed_blocks_refuse_another_route(forward_route, backward_route):
    model, x = small_model(), torch.randn(4, 2, 3, 3, requires_grad=True)

    def run(route, function):
        if route is None:
            return function()
        with use_branch(model, route) if isinstance(route, str) else use_branches(model, route):
            return function()

    loss = run(forward_route, lambda: checkpoint(model, x, use_reentrant=False).square().sum())
    # Without a route the op gets the tables of branch 0 alone and no ids: torch itself notices the difference.
    unrouted = None in (forward_route, backward_route)
    message = r"different metadata|different number of tensors" if unrouted else "under another route"
    with pytest.raises(RuntimeError, match=message):
        run(backward_route, loss.backward)


def test_layers_without_tensors_are_routed_where_they_are_called():
    layer = MultiBatchNorm2d(2, branches=("main", "st"), affine=False, track_running_stats=False)
    x = torch.randn(6, 2, 3, 3)
    with use_branches(layer, {"main": 2, "st": 4}):
        y = layer(x)
    parts = [nn.functional.batch_norm(part, None, None, training=True) for part in x.split([2, 4])]
    torch.testing.assert_close(y, torch.cat(parts))
