"""Laws that multi_batch_norm obeys for any input, by hypothesis."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from op_case_multi_batch_norm import tables

from mdprop_ext import ops
from mdprop_ext.reference import multi_batch_norm as reference
from mdprop_ext.reference import multi_batch_norm_backward as reference_backward

LAYOUTS = st.booleans()
SPATIAL = st.sampled_from([(1, 1), (2, 1), (3, 3), (7, 7), (8, 5), (33, 32)])


def images(samples: int, channels: int, spatial: tuple[int, int], channels_last: bool, dtype=torch.float32):
    x = torch.randn(samples, channels, *spatial, dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


@given(st.integers(2, 9), st.integers(1, 20), SPATIAL, LAYOUTS, st.booleans(), st.booleans())
def test_one_branch_with_residual_and_relu_is_batch_norm_add_relu(n, c, spatial, last, training, relu):
    x, residual = (images(n, c, spatial, last, torch.float64).requires_grad_() for _ in range(2))
    weight, bias, mean, var = tables(1, c, torch.float64)
    weight.requires_grad_()
    bias.requires_grad_()
    statistics = mean[0].clone(), var[0].clone()
    expected = F.batch_norm(x, *statistics, weight[0], bias[0], training) + residual
    expected = F.relu(expected) if relu else expected
    options = {"training": training, "activation": "relu" if relu else None, "residual": residual}
    y = ops.multi_batch_norm(x, weight, bias, mean, var, **options)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close((mean[0], var[0]), statistics)
    inputs, grad = (x, residual, weight, bias), torch.randn_like(y)
    for ours, theirs in zip(
        torch.autograd.grad(y, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=16), SPATIAL, LAYOUTS, st.randoms(use_true_random=False))
def test_permuting_samples_permutes_results(ids, spatial, last, random):
    order = list(range(len(ids)))
    random.shuffle(order)
    ids, spatial = torch.tensor(ids), (4, 5) if spatial == (1, 1) else spatial
    x, residual = (images(len(ids), 3, spatial, last, torch.float64) for _ in range(2))
    weight, bias, _, _ = tables(4, 3, torch.float64)
    options = {"training": True, "activation": "relu"}
    y = ops.multi_batch_norm(x, weight, bias, None, None, branch=ids, residual=residual, **options)
    moved = ops.multi_batch_norm(
        x[order], weight, bias, None, None, branch=ids[order], residual=residual[order], **options
    )
    torch.testing.assert_close(moved, y[order], rtol=1e-11, atol=1e-11)


@given(st.floats(0.125, 8), st.floats(-4, 4), SPATIAL, LAYOUTS)
def test_scaling_and_shifting_the_input_changes_nothing(scale, shift, spatial, last):
    x = images(8, 3, spatial, last, torch.float64)
    options = {"branch": [5, 3], "training": True, "eps": 0.0}
    expected = ops.multi_batch_norm(x, None, None, None, None, **options)
    y = ops.multi_batch_norm(scale * x + shift, None, None, None, None, **options)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)


@given(st.sampled_from([float("nan"), float("inf"), -float("inf")]), SPATIAL, LAYOUTS, st.booleans())
def test_a_bad_value_or_residual_stays_in_its_branch(bad, spatial, last, in_residual):
    ids = torch.tensor([0, 1, 0, 1, 1, 0])
    results = []
    for spoil in (False, True):
        torch.manual_seed(0)
        x, residual, grad = (images(6, 3, spatial, last) for _ in range(3))
        if spoil:
            (residual if in_residual else x)[1, 0, 0, 0] = bad
        x.requires_grad_()
        statistics = torch.zeros(2, 3), torch.ones(2, 3)
        y = ops.multi_batch_norm(
            x, None, None, *statistics, branch=ids, training=True, activation="relu", residual=residual
        )
        (grad_x,) = torch.autograd.grad(y, x, grad)
        results.append((y[ids == 0], grad_x[ids == 0], statistics[0][0], statistics[1][0]))
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)


@pytest.mark.parametrize("channels_last", [True, False])
def test_minus_zero_and_nan_pass_the_activation_as_in_torch(channels_last):
    x = images(4, 8, (3, 3), channels_last)
    mean, var = torch.zeros(1, 8), torch.ones(1, 8)
    x[0, 0, 0] = -0.0
    x[1, 1, 1, 1] = float("nan")
    for activation in (None, "relu"):
        y = ops.multi_batch_norm(x, None, torch.full((1, 8), -0.0), mean, var, activation=activation)
        assert torch.signbit(y[0, 0, 0]).all()
        assert y[1, 1, 1, 1].isnan()
    y = ops.multi_batch_norm(x, None, None, mean, var, activation="relu", residual=torch.full_like(x, -0.0))
    assert y[1, 1, 1, 1].isnan()


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("size", [1e-30, 1e-12, 1.0, 1e12, 1e18])
def test_tiny_and_huge_values(size, channels_last):
    x, eps = images(8, 3, (5, 5), channels_last) * size, 1e-30
    y = ops.multi_batch_norm(x, None, None, None, None, branch=[3, 5], training=True, eps=eps)
    for part, result in zip(x.double().split([3, 5]), y.double().split([3, 5]), strict=True):
        var, mean = torch.var_mean(part, (0, 2, 3), correction=0, keepdim=True)
        torch.testing.assert_close(result, (part - mean) / (var + eps).sqrt(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels_last", [True, False])
def test_gradients_of_data_far_from_zero(channels_last):
    x = (images(16, 4, (9, 9), channels_last, torch.float64) + 1e4).float()
    grad = images(16, 4, (9, 9), channels_last)
    results = []
    for dtype in (torch.float32, torch.float64):
        values = x.to(dtype).requires_grad_()
        y = ops.multi_batch_norm(values, None, None, None, None, branch=[7, 9], training=True)
        results.append(torch.autograd.grad(y, values, grad.to(dtype))[0].double())
    torch.testing.assert_close(*results, rtol=2e-3, atol=2e-3)


@given(st.lists(st.sampled_from([0, 0, 0, 4, 5]), min_size=1, max_size=6), SPATIAL, LAYOUTS)
def test_empty_branches_get_no_gradient_and_keep_their_statistics(sizes, spatial, last):
    x = images(sum(sizes), 3, spatial, last).requires_grad_()
    weight, bias, mean, var = tables(len(sizes), 3, torch.float32)
    weight.requires_grad_()
    bias.requires_grad_()
    before = mean.clone(), var.clone()
    y = ops.multi_batch_norm(x, weight, bias, mean, var, branch=torch.tensor(sizes).tolist(), training=True)
    grads = torch.autograd.grad(y.square().sum(), (weight, bias)) if x.numel() else (weight * 0, bias * 0)
    for b, size in enumerate(sizes):
        if size == 0:
            assert torch.equal(torch.stack([mean[b], var[b]]), torch.stack([before[0][b], before[1][b]]))
            assert not any(grad[b].any() for grad in grads)
    assert all(grad.isfinite().all() for grad in grads)


@given(st.integers(1, 5), LAYOUTS)
def test_one_table_for_all_branches_gets_the_sum_of_their_gradients(branches, last):
    x = images(3 * branches, 4, (3, 2), last, torch.float64)
    ids = torch.arange(branches).repeat(3)
    weight, bias = (torch.randn(1, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    copies = [t.detach().repeat(branches, 1).requires_grad_() for t in (weight, bias)]
    options = {"branch": ids, "training": True, "activation": "relu"}
    y = ops.multi_batch_norm(x, weight.expand(branches, 4), bias.expand(branches, 4), None, None, **options)
    expected = ops.multi_batch_norm(x, *copies, None, None, **options)
    assert torch.equal(y, expected)
    for ours, theirs in zip(
        torch.autograd.grad(y.square().sum(), (weight, bias)),
        torch.autograd.grad(expected.square().sum(), copies),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs.sum(0, keepdim=True))


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_input_does_not_spoil_the_gradient_through_constant_statistics(channels_last, bad):
    x = images(4, 3, (5, 5), channels_last)
    x[1, 2, 3, 4] = bad
    args, results = tables(1, 3, torch.float32), []
    for function in (
        lambda t: ops.multi_batch_norm(t, *args),
        lambda t: F.batch_norm(t, args[2][0], args[3][0], args[0][0], args[1][0]),
    ):
        data = x.clone(memory_format=torch.preserve_format).requires_grad_()
        results.append(torch.autograd.grad(function(data), data, torch.ones_like(x))[0])
    assert results[0].isfinite().all()
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 2, 2)])
def test_an_empty_batch_has_an_empty_mask_in_kernel_and_reference(shape):
    x = torch.empty(shape)
    weight, bias, mean, var = tables(2, 3, torch.float32)
    ids = torch.empty(0, dtype=torch.int64)
    arguments = (x, weight, bias, mean, var, x, ids, None, False, 1e-5, "relu")
    for forward, backward in (
        (torch.ops.mdprop.multi_batch_norm, torch.ops.mdprop.multi_batch_norm_backward),
        (reference.forward, reference_backward.backward),
    ):
        y, *_, mask = forward(*arguments)
        assert (y.shape, mask.shape) == (shape, (0,))
        grads = backward(x, x, weight, bias, mean, var, mask, None, ids, None, False, 1e-5, "relu", True)
        assert [grad.shape for grad in grads] == [shape, shape, (2, 3), (2, 3)]
        assert all(bool((grad == 0).all()) for grad in grads)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_gradient_from_sums_of_half_types_in_kernel_and_reference(dtype):
    x, grad = torch.randn(2, 4, 3, 2, dtype=torch.float64).to(dtype)[:, :, :, None].unbind()
    weight, bias, mean, var = tables(2, 3, torch.float32)
    inputs = (grad, x, weight, bias, mean, var, None)
    options = (torch.tensor([1, 0, 1, 0]), None)
    expected, ours = (
        backward(*inputs, sums(*inputs, *options, 1e-5, None)[0], *options, True, 1e-5, None, False)[0]
        for backward, sums in (
            (reference_backward.backward, reference_backward.backward_sums),
            (torch.ops.mdprop.multi_batch_norm_backward, torch.ops.mdprop.multi_batch_norm_backward_sums),
        )
    )
    assert expected.dtype == dtype
    torch.testing.assert_close(ours, expected)
