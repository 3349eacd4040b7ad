"""What is special about multi_batch_norm: equality with BatchNorm, isolation of branches, numerics."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_case_multi_batch_norm import tables

from mdprop_ext import ops


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
def test_one_branch_is_batch_norm(training, channels_last):
    x = torch.randn(8, 6, 10, 9, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    weight, bias, mean, var = tables(1, 6, torch.float64)
    theirs_mean, theirs_var = mean[0].clone(), var[0].clone()
    y = ops.multi_batch_norm(x, weight, bias, mean, var, training=training)
    expected = torch.nn.functional.batch_norm(x, theirs_mean, theirs_var, weight[0], bias[0], training)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(mean[0], theirs_mean)
    torch.testing.assert_close(var[0], theirs_var)


@given(
    ids=st.lists(st.integers(0, 3), min_size=1, max_size=24), spatial=st.integers(2, 40), channels_last=st.booleans()
)
def test_each_branch_is_batch_norm_of_its_own_samples(ids, spatial, channels_last):
    ids = torch.tensor(ids)
    x = torch.randn(len(ids), 3, spatial, 1, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    weight, bias, mean, var = tables(4, 3, torch.float64)
    before = mean.clone(), var.clone()
    y = ops.multi_batch_norm(x, weight, bias, mean, var, branch=ids, training=True)
    for b in range(4):
        members = ids == b
        if not members.any():
            assert torch.equal(mean[b], before[0][b])
            assert torch.equal(var[b], before[1][b])
            continue
        running = before[0][b].clone(), before[1][b].clone()
        expected = torch.nn.functional.batch_norm(x[members], *running, weight[b], bias[b], True)
        torch.testing.assert_close(y[members], expected)
        torch.testing.assert_close((mean[b], var[b]), running)


def test_ids_and_sizes_agree_bit_for_bit():
    x, args = torch.randn(9, 4, 6, 6), tables(3, 4, torch.float32)
    results = [
        ops.multi_batch_norm(x, *args, branch=branch)
        for branch in ([4, 0, 5], torch.tensor([4, 0, 5]), torch.tensor([0] * 4 + [2] * 5))
    ]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("channels_last", [True, False])
def test_nan_and_inf_stay_in_their_branch(bad, channels_last):
    x, ids = torch.randn(8, 3, 5, 5), torch.tensor([0, 1] * 4)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    spoilt = x.clone(memory_format=torch.preserve_format)
    spoilt[1, 0, 2, 2] = bad
    results = []
    for data in (x, spoilt):
        data = data.requires_grad_()
        statistics = torch.zeros(2, 3), torch.ones(2, 3)
        y = ops.multi_batch_norm(data, None, None, *statistics, branch=ids, training=True)
        results.append((y[::2], *torch.autograd.grad(y[::2].square().sum(), data), statistics[0][0], statistics[1][0]))
    for clean, dirty in zip(*results, strict=True):
        dirty, clean = (t[::2] if t.dim() == 4 and t.shape[0] == 8 else t for t in (dirty, clean))
        assert torch.equal(clean, dirty)


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_mean_of_ten_thousand_deviations_keeps_its_digits(channels_last):
    x = (torch.randn(64, 4, 16, 16, dtype=torch.float64) + 1e4).float()
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    mean, var = torch.zeros(1, 4), torch.zeros(1, 4)
    ops.multi_batch_norm(x, None, None, mean, var, training=True, momentum=1.0)
    expected = x.double().var((0, 2, 3))
    torch.testing.assert_close(var[0].double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(mean[0].double(), x.double().mean((0, 2, 3)), rtol=1e-7, atol=0)


def test_constant_channels_and_outliers():
    x = torch.full((16, 2, 8, 8), 3.25)
    x[0, 1, 0, 0] = 1e6
    var = torch.zeros(1, 2)
    y = ops.multi_batch_norm(x, None, None, torch.zeros(1, 2), var, training=True, momentum=1.0)
    assert torch.equal(y[:, 0], torch.zeros(16, 8, 8))
    torch.testing.assert_close(var[0].double(), x.double().var((0, 2, 3)), rtol=1e-6, atol=0)


def test_half_and_strided_statistics_are_updated():
    x, (weight, bias, mean, var) = torch.randn(6, 3, 4, 4), tables(2, 3, torch.float32)
    options = {"branch": [4, 2], "training": True}
    expected = mean.clone(), var.clone()
    ops.multi_batch_norm(x, weight, bias, *expected, **options)
    strided = mean.t().contiguous().t(), var.t().contiguous().t()
    ops.multi_batch_norm(x, weight, bias, *strided, **options)
    assert torch.equal(strided[0], expected[0])
    assert torch.equal(strided[1], expected[1])
    half = mean.bfloat16(), var.bfloat16()
    ops.multi_batch_norm(x, weight, bias, *half, **options)
    torch.testing.assert_close(half[1].float(), expected[1], rtol=2e-2, atol=2e-2)


def test_attacks_pay_for_no_weight_gradients():
    """Without a gradient for the affine parameters none is computed: the op returns empty tensors."""
    x, (weight, bias, mean, var) = torch.randn(4, 3, 2, 2), tables(1, 3, torch.float32)
    arguments = (torch.ones_like(x), x, weight, bias, mean, var, *[None] * 4, False, 1e-5, None)
    grad_x, _, grad_weight, grad_bias = torch.ops.mdprop.multi_batch_norm_backward(*arguments, False)
    assert grad_weight.numel() == grad_bias.numel() == 0
    assert torch.equal(grad_x, torch.ops.mdprop.multi_batch_norm_backward(*arguments, True)[0])
