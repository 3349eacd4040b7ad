"""What the batch norms ask of their tables and numbers, and what autograd hears of the running statistics."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mdprop_ext import nn, ops

X = torch.rand(4, 3, 2, 2)
NAMES = ("weight", "bias", "running_mean", "running_var")


def norm(**changed: object) -> torch.Tensor:
    tables = {name: torch.ones(2, 3) for name in NAMES}
    return ops.multi_batch_norm(X, **{**tables, "branch": [2, 2], "training": True, **changed})


def mixture(**changed: object) -> torch.Tensor:
    tables = {name: torch.ones(2, 3) for name in NAMES}
    return ops.multi_batch_norm_mixture(X, **{**tables, "probs": torch.ones(4, 2), **changed})


@pytest.mark.parametrize("function", [norm, mixture])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([1.0, 2.0], "expected a tensor, got list"),
        (torch.ones(2, 3, dtype=torch.complex64), "expected float32.*got torch.complex64"),
        (torch.ones(2, 3, dtype=torch.int64), "expected float32.*got torch.int64"),
    ],
    ids=["list", "complex", "integers"],
)
def test_tables_are_floating_tensors(function, name, table, message):
    with pytest.raises(TypeError, match=f"^{name}: {message}"):
        function(**{name: table})


@pytest.mark.parametrize("function", [norm, mixture])
def test_running_statistics_are_of_one_dtype(function):
    with pytest.raises(
        TypeError, match=r"running_var: expected the dtype of running_mean, torch.float32, got .*float64"
    ):
        function(running_var=torch.ones(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(), (0, 3)])
def test_there_is_a_branch(name, shape):
    tables = {**dict.fromkeys(NAMES), name: torch.ones(shape)}
    if name.startswith("running"):
        tables |= {"running_mean": torch.ones(shape), "running_var": torch.ones(shape)}
    first = "running_mean" if name.startswith("running") else name
    with pytest.raises(
        ValueError, match=rf"^{first}: expected \[B, C\] with B >= 1, got \[{'0, 3' if shape else ''}\]$"
    ):
        norm(**tables)


def test_there_is_a_size():
    with pytest.raises(ValueError, match="branch: expected the size of one branch at least, got none"):
        norm(**dict.fromkeys(NAMES), branch=[])
    with pytest.raises(ValueError, match="branch: expected the size of one branch at least, got none"):
        ops.multi_batch_norm(X[:0], *[None] * 4, branch=[], training=True)


@pytest.mark.parametrize("value", ["a", True, [0.1]])
@pytest.mark.parametrize(("function", "name"), [(norm, "eps"), (norm, "momentum"), (mixture, "eps")])
def test_options_are_numbers(function, name, value):
    with pytest.raises(TypeError, match=f"^{name}: expected a number, got {type(value).__name__}$"):
        function(**{name: value})


def test_eps_is_not_optional():
    for function in (norm, mixture):
        with pytest.raises(TypeError, match="eps: expected a number, got NoneType"):
            function(eps=None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_graph_that_saved_running_statistics_refuses_to_run_backward(dtype):
    for name in ("running_mean", "running_var"):
        tables = {n: torch.ones(2, 3, dtype=dtype) for n in ("running_mean", "running_var")}
        product = torch.ones(2, 3, requires_grad=True) * tables[name]
        norm(**tables, training=False)
        product.sum().backward(retain_graph=True)
        norm(**tables)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            product.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_layer_tells_autograd_of_its_buffers(dtype):
    layer = nn.MultiBatchNorm2d(3).to(dtype)
    buffers = list(layer.buffers())
    before = [buffer._version for buffer in buffers]
    layer.eval()(X.to(dtype))
    assert [buffer._version for buffer in buffers] == before
    layer.train()
    with nn.use_branches(layer, {"main": 2, "aux1": 2}):
        layer(X.to(dtype))
    assert all(buffer._version > version for buffer, version in zip(buffers, before, strict=True))


@pytest.mark.parametrize("branch", [None, torch.tensor([1, 3])])
def test_the_second_derivative_waits_for_no_value(branch):
    """Fake tensors have no values to wait for."""
    rows = 1 if branch is None else 2
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.rand(4, 3, 2, 2, requires_grad=True)
        ones = torch.ones(rows, 3)
        sizes = None if branch is None else torch.empty(2, dtype=torch.int64)
        y, *_ = torch.ops.mdprop.multi_batch_norm(x, ones, ones, None, None, None, None, sizes, True, 1e-5, None)
        (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), x)
    assert second.shape == x.shape
