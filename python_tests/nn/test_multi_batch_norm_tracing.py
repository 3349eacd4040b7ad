"""The layers where no value can be looked at: compiled, exported, on devices that give none away."""

import copy

import pytest
import torch
from nn.norm_layers import OPTIONS, randomize
from nn.peer_layers import BatchNormAct2d
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode

from mdprop_ext.nn import (
    MultiBatchNorm1d,
    MultiBatchNorm2d,
    backbones,
    convert_multi_bn,
    strip_branches,
    use_branch,
    use_branches,
)

NAMES = ("main", "st", "mt")
RAW_OPS = [
    getattr(torch.ops.mdprop, name).default
    for name in (
        "multi_batch_norm",
        "multi_batch_norm_backward",
        "multi_batch_norm_statistics",
        "multi_batch_norm_merge",
        "multi_batch_norm_backward_sums",
        "multi_batch_norm_mixture",
    )
]


def network():
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 1),
        BatchNormAct2d(4, nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.BatchNorm1d(4),
    )
    return randomize(convert_multi_bn(plain, NAMES, fuse_activation=True))


def sizes(samples, turn):
    """Some sizes of branches, of at least two samples each, that differ from turn to turn."""
    order = NAMES[turn % 3 :] + NAMES[: turn % 3]
    return dict(zip(order, (samples - 4, 2, 2), strict=True))


def test_sizes_seen_before_do_not_compile_again():
    torch._dynamo.reset()
    model, eager = network(), network()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    counts = []
    shapes = [(6, 5), (9, 5), (12, 7), *[(6, 5), (9, 7), (12, 9)] * 2]
    for turn, (samples, pixels) in enumerate(shapes):
        x = torch.randn(samples, 2, pixels, pixels)
        with use_branches(model, sizes(samples, turn)), use_branches(eager, sizes(samples, turn)):
            result, expected = compiled(x), eager(x)
        torch.testing.assert_close(result, expected)
        result.square().sum().backward()
        counts.append(counter.frame_count)
    # One graph of fixed sizes, one with any number of samples, one with any number of pixels too.
    assert counts[2] <= 3
    assert set(counts[2:]) == {counts[2]}
    torch.testing.assert_close(dict(model.state_dict()), dict(eager.state_dict()))


def test_compiled_by_the_default_backend():
    torch._dynamo.reset()
    model, eager = (randomize(MultiBatchNorm2d(4, branches=NAMES, activation="relu")) for _ in range(2))
    compiled = torch.compile(model, fullgraph=True)
    x = torch.randn(6, 4, 3, 3)
    for turn in range(3):
        for routed, call in ((model, compiled), (eager, eager)):
            with use_branches(routed, sizes(6, turn)):
                call(x).square().sum().backward()
    torch.testing.assert_close(dict(model.state_dict()), dict(eager.state_dict()))
    for name, parameter in eager.named_parameters():
        torch.testing.assert_close(model.get_parameter(name).grad, parameter.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_no_value_of_a_device_is_read(options, training):
    """On the meta device there is none to read; ids, sizes and statistics there stand for those of a card."""
    with torch.device("meta"):
        flat, deep = MultiBatchNorm1d(4, **options), MultiBatchNorm2d(4, activation="relu", **options)
        ids = torch.tensor([0, 1, 1, 0, 1, 0])
    for layer, shape in ((flat, (6, 4)), (deep, (6, 4, 3, 3))):
        for context in (
            use_branch(layer, "aux1"),
            use_branches(layer, ids),
            use_branches(layer, {"aux1": 4, "main": 2}),
        ):
            x = torch.empty(shape, device="meta", requires_grad=True)
            with context:
                output = layer.train(training)(x, x.detach() if layer is deep else None)
            output.sum().backward()
            assert (output.shape, x.grad.shape) == (x.shape, x.shape)


def test_a_traced_run_makes_no_access_that_depends_on_data():
    with FakeTensorMode():
        model = convert_multi_bn(backbones.conv4(), NAMES, fuse_activation=True)
        for ids in (torch.tensor([0, 1, 2, 2]), torch.tensor([1, 1, 1, 1])):
            for layer in model.modules():
                if isinstance(layer, MultiBatchNorm2d):
                    layer.route = ids  # a trace has no values that use_branches could check
            x = torch.empty(4, 1, 16, 16, requires_grad=True)
            model(x).sum().backward()
            assert x.grad.shape == x.shape


@pytest.mark.parametrize("op", RAW_OPS, ids=lambda op: op.name())
def test_schemas_are_functional(op):
    """They neither write nor alias, so that graphs of calls, CUDA's among them, may keep and repeat them."""
    schema = op._schema
    assert not schema.is_mutable
    assert all(argument.alias_info is None for argument in (*schema.arguments, *schema.returns))


def test_the_update_writes_what_it_says_and_returns_nothing():
    schema = torch.ops.mdprop.multi_batch_norm_update_.default._schema
    written = [argument.name for argument in schema.arguments if argument.alias_info and argument.alias_info.is_write]
    assert written == ["running_means", "running_vars", "num_batches"]
    assert list(schema.returns) == []


@pytest.mark.parametrize("requires_grad", [True, False])
def test_opcheck_with_sizes_that_are_symbols(requires_grad):
    x = torch.randn(7, 3, 5, 4, requires_grad=requires_grad)
    tables = [torch.rand(2, 3) + 0.5 for _ in range(4)]
    ids = torch.tensor([0, 1, 1, 0, 1, 0, 0])
    for training, branches in ((True, (ids, None)), (False, (None, torch.tensor([3, 4])))):
        args = (x, *tables, None, *branches, training, 1e-5, "relu")
        checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
        results = torch.library.opcheck(torch.ops.mdprop.multi_batch_norm.default, args, test_utils=checks)
        assert set(results.values()) == {"SUCCESS"}
    update = ([torch.zeros(3), torch.zeros(3)], [torch.ones(3), torch.ones(3)], [torch.tensor(0), torch.tensor(0)])
    statistics = (torch.rand(2, 3), torch.rand(2, 3), torch.tensor([12, 9]))
    torch.library.opcheck(torch.ops.mdprop.multi_batch_norm_update_.default, (*update, *statistics, 0.1))


def test_exported_with_any_number_of_samples_after_stripping():
    model = strip_branches(network().eval(), "st")
    samples = torch.export.Dim("samples", min=1, max=64)
    program = torch.export.export(model, (torch.randn(4, 2, 5, 5),), dynamic_shapes=({0: samples},))
    for count in (2, 9):
        x = torch.randn(count, 2, 5, 5)
        torch.testing.assert_close(program.module()(x), model(x))
    assert not [node for node in program.graph.nodes if "mdprop" in str(node.target)]


@pytest.mark.parametrize("residual", [True, False])
def test_onnx_after_stripping_gives_the_same_numbers(tmp_path, residual):
    pytest.importorskip("onnxscript")
    reference = pytest.importorskip("onnx.reference")
    model = strip_branches(network().eval(), "mt", residual=residual)
    x = torch.randn(3, 2, 5, 5)
    torch.onnx.export(model, (x,), tmp_path / "model.onnx", dynamo=True, verbose=False)
    (output,) = reference.ReferenceEvaluator(str(tmp_path / "model.onnx")).run(None, {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), model(x), atol=1e-5, rtol=1e-4)


def test_a_model_with_its_branches_is_exported_on_the_route_of_the_trace():
    model = network().eval()
    x = torch.randn(4, 2, 5, 5)
    with use_branch(model, "mt"):
        expected, program = model(x), torch.export.export(model, (x,))
    torch.testing.assert_close(program.module()(x), expected)
    torch.testing.assert_close(strip_branches(copy.deepcopy(model), "mt")(x), expected)
