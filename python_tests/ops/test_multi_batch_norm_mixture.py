"""What is special about multi_batch_norm_mixture."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_case_multi_batch_norm import batch, tables

from mdprop_ext import ops
from mdprop_ext.reference import multi_batch_norm_mixture as reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["planes_gathered", "rows_wide", "rows_1d"])
def test_one_branch_a_sample_gives_the_bits_of_evaluation(name, dtype):
    x = batch(name, dtype)
    args, ids = tables(3, x.shape[1], dtype), torch.arange(x.shape[0]) % 3
    probs = torch.nn.functional.one_hot(ids, 3).to(args[0].dtype)
    assert torch.equal(ops.multi_batch_norm_mixture(x, *args, probs), ops.multi_batch_norm(x, *args, branch=ids))


def test_a_branch_of_probability_zero_takes_no_part():
    x, (weight, bias, mean, var) = torch.randn(6, 3, 4, requires_grad=True), tables(3, 3, torch.float32)
    mean[2], var[0, 1] = float("nan"), float("inf")
    probs = torch.tensor([[0.5, 0.5, 0.0]] * 5 + [[0.0, 0.0, 1.0]])
    weight.requires_grad_()
    y = ops.multi_batch_norm_mixture(x, weight, bias, mean, var, probs)
    assert y[:5].isfinite().all()
    assert y[5].isnan().all()
    y[:5].square().sum().backward()
    assert weight.grad[:2].isfinite().all()
    assert x.grad[:5].isfinite().all()


@given(st.integers(1, 5), st.integers(1, 7), st.floats(-2, 2))
def test_is_linear_in_the_probabilities(branches, spatial, factor):
    x, args = torch.randn(4, 3, spatial, dtype=torch.float64), tables(branches, 3, torch.float64)
    first, second = torch.randn(2, 4, branches, dtype=torch.float64)
    mixed = ops.multi_batch_norm_mixture(x, *args, first + factor * second)
    expected = ops.multi_batch_norm_mixture(x, *args, first) + factor * ops.multi_batch_norm_mixture(x, *args, second)
    torch.testing.assert_close(mixed, expected, rtol=1e-10, atol=1e-10)


def test_data_far_from_zero_keeps_its_digits():
    noise = torch.randn(8, 4, 50, dtype=torch.float64)
    mean = torch.stack([torch.full((4,), 1e4), torch.full((4,), 1e4 + 1)])
    args = (torch.ones(2, 4), torch.zeros(2, 4), mean, torch.ones(2, 4))
    probs = torch.full((8, 2), 0.5)
    x = (noise + 1e4).float()
    expected = (x.double() - 1e4 - 0.5) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(ops.multi_batch_norm_mixture(x, *args, probs).double(), expected, rtol=1e-6, atol=1e-6)


def test_attacks_pay_for_no_table_gradients():
    x, args = torch.randn(4, 3, 2, 2), tables(2, 3, torch.float32)
    arguments = (torch.ones_like(x), x, *args, torch.full((4, 2), 0.5), 1e-5)
    grad_x, *empty = torch.ops.mdprop.multi_batch_norm_mixture_backward(*arguments, False)
    assert [table.numel() for table in empty] == [0, 0, 0]
    assert torch.equal(grad_x, torch.ops.mdprop.multi_batch_norm_mixture_backward(*arguments, True)[0])


def test_the_gradient_of_the_reference_is_that_of_the_kernel():
    x, args = torch.randn(4, 3, 5, dtype=torch.float64), tables(3, 3, torch.float64)
    probs = torch.rand(4, 3, dtype=torch.float64)
    probs[0, 1] = 0
    arguments = (torch.randn_like(x), x, *args, probs, 1e-5, True)
    results = torch.ops.mdprop.multi_batch_norm_mixture_backward(*arguments)
    for result, expected in zip(reference.backward(*arguments), results, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
    grad_x, *tables_of_attacks = reference.backward(*arguments[:-1], False)
    torch.testing.assert_close(grad_x, results[0], rtol=1e-12, atol=1e-12)
    assert [table.numel() for table in tables_of_attacks] == [0, 0, 0]
