"""The plain PyTorch kernels of multi_batch_norm against the compiled ones and the float64 oracle."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from op_case_multi_batch_norm import batch, branch_arguments, tables
from op_checks import assert_near
from oracles.multi_batch_norm import multi_batch_norm_oracle
from torch import Tensor

from mdprop_ext.reference import multi_batch_norm as forward_kernels
from mdprop_ext.reference import multi_batch_norm_backward as backward_kernels

RAW = torch.ops.mdprop
EPS = 1e-5
# A few roundings of the largest values and sums, as for the op itself.
TOLERANCE = {torch.float64: (1e-10, 1e-10), torch.float32: (2e-4, 2e-4), torch.bfloat16: (2e-2, 2e-2)}
BY_SHAPE = pytest.mark.parametrize("name", ["planes_gathered", "rows_1d", "rows_3d", "rows_narrow"])
BY_DTYPE = pytest.mark.parametrize("dtype", list(TOLERANCE))


def routes(samples: int) -> Iterator[tuple[int, Tensor | None, Tensor | None]]:
    """Number of branches, ids and sizes: in any order, in order, sizes with an empty branch, one branch."""
    ways = branch_arguments(samples)
    yield 3, ways["ids"], None
    yield 3, ways["ids"].sort().values, None
    yield 3, None, ways["size_tensor"]
    yield 1, None, None


def ids_of(samples: int, ids: Tensor | None, sizes: Tensor | None) -> Tensor:
    if ids is not None:
        return ids
    return torch.zeros(samples, dtype=torch.int64) if sizes is None else torch.repeat_interleave(sizes)


def moments(x: Tensor, branches: int, ids: Tensor) -> Tensor:
    """Count, means and sums of squared distances to them, ``[B, 2C + 1]``."""
    table = torch.zeros(branches, 2 * x.shape[1] + 1, dtype=torch.float64)
    for b in ids.unique().tolist():
        values = x[ids == b].double().movedim(1, -1).reshape(-1, x.shape[1])
        square = (values - values.mean(0)).square().sum(0)
        table[b] = torch.cat([torch.tensor([float(len(values))]), values.mean(0), square])
    return table


@BY_SHAPE
@BY_DTYPE
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("with_residual", [True, False])
def test_forward_and_backward(name, dtype, training, activation, with_residual):
    x, grad, residual = (batch(name, dtype) for _ in range(3))
    residual = residual if with_residual else None
    for branches, ids, sizes in routes(x.shape[0]):
        weight, bias, *running = tables(branches, x.shape[1], dtype)
        running = [None, None] if training else running
        inputs = (x, weight, bias, *running, residual, ids, sizes, training, EPS, activation)
        compiled = RAW.multi_batch_norm(*inputs)
        assert_near(forward_kernels.forward(*inputs)[:4], compiled[:4], TOLERANCE[dtype], "forward")
        assert forward_kernels.forward(*inputs)[4].shape == compiled[4].shape

        _, mean, var, _, mask = compiled
        saved = (grad, x, weight, bias, mean, var, mask if mask.numel() else None, None, ids, sizes)
        gradients = backward_kernels.backward(*saved, training, EPS, activation, True)
        expected = RAW.multi_batch_norm_backward(*saved, training, EPS, activation, True)
        assert_near(gradients, expected, TOLERANCE[dtype], "backward")

        leaves = [None if t is None else t.double().requires_grad_() for t in (x, weight, bias, residual)]
        options = {"branch": ids_of(x.shape[0], ids, sizes), "training": training, "activation": activation}
        y = multi_batch_norm_oracle(*leaves[:3], *running, residual=leaves[3], eps=EPS, **options)
        assert_near((forward_kernels.forward(*inputs)[0],), (y.detach(),), TOLERANCE[dtype], "oracle")
        exact = torch.autograd.grad(y, leaves[:3], grad.double())
        relative, absolute = TOLERANCE[dtype]
        largest = max(1.0, *(t.abs().max().item() for t in exact))
        wanted = gradients[0], *gradients[2:]
        assert_near(wanted, exact, (relative, absolute * largest), "gradients of the oracle")


@pytest.mark.parametrize("route", range(4))
@pytest.mark.parametrize("training", [True, False])
def test_the_public_reference_and_the_kernel_agree(route, training):
    x, args = batch("planes_1d", torch.float64), tables(3, 6, torch.float64)
    _, ids, sizes = list(routes(8))[route]
    y = forward_kernels.multi_batch_norm(x, *args, branch=sizes if ids is None else ids, training=training)
    expected = RAW.multi_batch_norm(x, *args, None, ids, sizes, training, EPS, None)[0]
    assert_near((y,), (expected,), TOLERANCE[torch.float64], "public")


@BY_SHAPE
@BY_DTYPE
@pytest.mark.parametrize("activation", [None, "relu"])
def test_halves_join_to_the_whole(name, dtype, activation):
    x, grad = batch(name, dtype), batch(name, dtype)
    half, tolerance = x.shape[0] // 2, TOLERANCE[dtype]
    for branches, ids, sizes in routes(x.shape[0]):
        weight, bias, *_ = tables(branches, x.shape[1], dtype)
        whole = forward_kernels.statistics(x, branches, ids, sizes)
        every = ids_of(x.shape[0], ids, sizes)
        assert_near((whole,), (moments(x, branches, every),), (1e-10, 1e-10), "moments")
        compiled = RAW.multi_batch_norm_statistics(x, branches, ids, sizes)
        assert_near((whole,), (compiled,), (min(1e-6, tolerance[0]),) * 2, "moments of the kernel")
        parts = [
            forward_kernels.statistics(x[of], branches, every[of], None) for of in (slice(half), slice(half, None))
        ]
        mean, var, count = forward_kernels.merge(torch.stack(parts), weight.dtype)
        joined = RAW.multi_batch_norm_merge(torch.stack(parts), weight.dtype)
        assert_near((mean, var, count), joined, (1e-6, 1e-6), "merge")
        all_means, squares = whole[:, 1:].chunk(2, 1)
        assert_near((mean, var), (all_means, squares / count.clamp(min=1)[:, None]), (1e-6, 1e-6), "merged against all")
        assert count.tolist() == (torch.bincount(every, minlength=branches) * x[0, 0].numel()).tolist()

        saved = (grad, x, weight, bias, mean, var, None)
        sums = backward_kernels.backward_sums(*saved, ids, sizes, EPS, activation)
        assert_near(
            sums, RAW.multi_batch_norm_backward_sums(*saved, ids, sizes, EPS, activation), tolerance, "backward_sums"
        )
        rest = (ids, sizes, True, EPS, activation, True)
        assert_near(
            backward_kernels.backward(*saved, sums[0], *rest),
            backward_kernels.backward(*saved, None, *rest),
            tolerance,
            "backward from sums",
        )


@pytest.mark.parametrize("momentum", [0.3, None])
def test_update_is_that_of_the_kernel(momentum):
    mean, var, count = torch.randn(3, 4), torch.rand(3, 4), torch.tensor([8, 0, 1])
    tables_of = [[list(torch.zeros(3, 4)), list(torch.ones(3, 4)), list(torch.tensor([4, 5, 0]))] for _ in range(2)]
    forward_kernels.update(*tables_of[0], mean, var, count, momentum)
    RAW.multi_batch_norm_update_(*tables_of[1], mean, var, count, momentum)
    for result, expected in zip(*tables_of, strict=True):
        torch.testing.assert_close(result, expected)
    means, variances, batches = tables_of[0]
    share = 1 / 5 if momentum is None else momentum
    torch.testing.assert_close(means[0], share * mean[0])
    torch.testing.assert_close(variances[0], 1 - share + share * var[0] * 8 / 7)
    assert torch.equal(means[1], torch.zeros(4)), "an absent branch stays"
    assert torch.stack(batches).tolist() == [5, 5, 1]


def test_without_samples_nothing_is_computed():
    x, (weight, bias, mean, var) = torch.empty(0, 3, 2), tables(2, 3, torch.float32)
    ids = torch.empty(0, dtype=torch.int64)
    y, batch_mean, _, count, _ = forward_kernels.forward(x, weight, bias, None, None, None, ids, None, True, EPS, None)
    assert y.shape == x.shape
    assert not batch_mean.any()
    assert count.tolist() == [0, 0]
    gradients = backward_kernels.backward(
        x, x, weight, bias, mean, var, None, None, ids, None, True, EPS, "relu", False
    )
    assert gradients[0].shape == x.shape
    assert [table.numel() for table in gradients[1:]] == [0, 0, 0]
