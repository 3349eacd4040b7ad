"""The halves of multi_batch_norm and its running statistics: raw ops that a layer over several processes calls."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_case_multi_batch_norm import batch, tables
from torch import nn

from mdprop_ext.reference import multi_batch_norm as reference

RAW = torch.ops.mdprop
EPS = 1e-5
IDS = torch.tensor([2, 0, 2, 0, 1, 1, 0, 2, 0])


def whole(x, weight, bias, residual, ids, activation, grad) -> dict[str, torch.Tensor]:
    """Forward and backward of the fused op in training."""
    y, mean, var, count, mask = RAW.multi_batch_norm(
        x, weight, bias, None, None, residual, ids, None, True, EPS, activation
    )
    kept = mask if mask.numel() else None
    arguments = (grad, x, weight, bias, mean, var, kept, None, ids, None, True, EPS, activation, True)
    grads = RAW.multi_batch_norm_backward(*arguments)
    names = ("grad_x", "grad_residual", "grad_weight", "grad_bias")
    return {"y": y, "mean": mean, "var": var, "count": count, **dict(zip(names, grads, strict=True))}


def in_halves(parts: list[dict[str, Any]], weight, bias, activation) -> dict[str, torch.Tensor]:
    """The same over the parts of a batch: one exchange in forward, one in backward."""
    branches, dtype = weight.shape[0], weight.dtype
    gathered = torch.stack([RAW.multi_batch_norm_statistics(part["x"], branches, part["ids"], None) for part in parts])
    mean, var, count = RAW.multi_batch_norm_merge(gathered, dtype)
    results, sums = [], []
    for part in parts:
        y, *_, mask = RAW.multi_batch_norm(
            part["x"], weight, bias, mean, var, part["residual"], part["ids"], None, False, EPS, activation
        )
        part["mask"] = mask if mask.numel() else None
        arguments = (part["grad"], part["x"], weight, bias, mean, var, part["mask"], part["ids"], None, EPS, activation)
        sums.append(RAW.multi_batch_norm_backward_sums(*arguments))
        results.append({"y": y})
    total = torch.stack([part[0] for part in sums]).sum(0)
    for part, result in zip(parts, results, strict=True):
        arguments = (part["grad"], part["x"], weight, bias, mean, var, part["mask"], total, part["ids"], None)
        result["grad_x"], result["grad_residual"], _, _ = RAW.multi_batch_norm_backward(
            *arguments, True, EPS, activation, False
        )
    joined = {name: torch.cat([result[name] for result in results]) for name in results[0]}
    affine = {"grad_weight": sum(part[1] for part in sums), "grad_bias": sum(part[2] for part in sums)}
    return {"mean": mean, "var": var, "count": count, **joined, **affine}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("name", ["planes_gathered", "rows_blocks", "rows_1d"])
def test_two_halves_give_the_bits_of_the_whole(name, activation, with_residual, dtype):
    x, grad, residual = (batch(name, dtype) for _ in range(3))
    residual = residual if with_residual else None
    weight, bias, _, _ = tables(3, x.shape[1], dtype)
    ids = IDS[torch.arange(x.shape[0]) % 9]
    expected = whole(x, weight, bias, residual, ids, activation, grad)
    parts = [{"x": x, "ids": ids, "residual": residual, "grad": grad}]
    for key, value in in_halves(parts, weight, bias, activation).items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("channels_last", [True, False])
def test_two_ranks_equal_the_joined_batch(channels_last, activation):
    shape = (12, 5, 6, 7)
    x, grad, residual = (torch.randn(shape, dtype=torch.float64) * 2 + 3 for _ in range(3))
    if channels_last:
        x, grad, residual = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad, residual))
    weight, bias, _, _ = tables(4, 5, torch.float64)
    # Branch 1 is empty everywhere, branch 2 on the first rank only, branch 3 on the second.
    ids = torch.tensor([0, 3, 0, 0, 3, 0, 0, 2, 2, 0, 0, 2])
    expected = whole(x, weight, bias, residual, ids, activation, grad)
    parts = [
        {"x": x[of], "ids": ids[of], "residual": residual[of], "grad": grad[of]} for of in (slice(6), slice(6, 12))
    ]
    results = in_halves(parts, weight, bias, activation)
    if activation is None:
        expected["grad_residual"] = results["grad_residual"]  # without a mask it is the gradient itself
    for key, value in results.items():
        torch.testing.assert_close(
            value, expected[key], rtol=1e-12, atol=1e-12, msg=lambda text, key=key: f"{key}: {text}"
        )


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.floats(-1e6, 1e6))
def test_merging_parts_gives_the_moments_of_all(sizes, centre):
    parts = [torch.randn(size, 2, 3, dtype=torch.float64) + centre for size in sizes]
    moments = torch.stack([RAW.multi_batch_norm_statistics(part, 1, None, None) for part in parts])
    mean, var, count = RAW.multi_batch_norm_merge(moments, torch.float64)
    values = torch.cat(parts).transpose(0, 1).flatten(1)
    assert count.item() == values.shape[1]
    if values.shape[1]:
        torch.testing.assert_close(mean[0], values.mean(1), rtol=1e-14, atol=1e-15)
        torch.testing.assert_close(var[0], values.var(1, correction=0), rtol=1e-8, atol=1e-12)
    else:
        assert torch.equal(torch.cat([mean, var]), torch.zeros(2, 2, dtype=torch.float64))


def test_the_cumulative_average_weighs_all_batches_alike():
    norms = [nn.BatchNorm1d(3, momentum=None) for _ in range(2)]
    means, variances = [torch.zeros(3) for _ in range(2)], [torch.ones(3) for _ in range(2)]
    counters = [torch.tensor(0) for _ in range(2)]
    for sizes in ([4, 6], [0, 5], [7, 3]):
        x = torch.randn(sum(sizes), 3)
        for norm, part in zip(norms, x.split(sizes), strict=True):
            if len(part):
                norm(part)
        _, mean, var, count, _ = RAW.multi_batch_norm(
            x, None, None, None, None, None, None, torch.tensor(sizes), True, EPS, None
        )
        RAW.multi_batch_norm_update_(means, variances, counters, mean, var, count, None)
    for b, norm in enumerate(norms):
        torch.testing.assert_close(means[b], norm.running_mean)
        torch.testing.assert_close(variances[b], norm.running_var)
        assert counters[b] == norm.num_batches_tracked


def test_any_number_of_branches_is_updated():
    branches = 37
    x = torch.randn(2 * branches, 3, 2)
    ids = torch.arange(branches).repeat(2)
    running = torch.zeros(branches, 3), torch.zeros(branches, 3)
    _, mean, var, count, _ = RAW.multi_batch_norm(x, running[0], *[None] * 4, ids, None, True, EPS, None)
    RAW.multi_batch_norm_update_(list(running[0]), list(running[1]), [], mean, var, count, 1.0)
    torch.testing.assert_close(running[0], mean)
    torch.testing.assert_close(running[1], var * 4 / 3)


def test_raw_ops_refuse_what_does_not_fit():
    x = torch.randn(4, 3, 2, 2)
    mean, var = torch.zeros(2, 3), torch.ones(2, 3)
    mask, sums = torch.zeros(1, dtype=torch.uint8), torch.zeros(2, 6, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"mean must be \[B, C\]"):
        RAW.multi_batch_norm_backward(x, x, None, None, mean[:, :2], var, *[None] * 4, False, EPS, None, True)
    with pytest.raises(RuntimeError, match="mask does not fit x"):
        RAW.multi_batch_norm_backward(x, x, None, None, mean, var, mask, *[None] * 3, False, EPS, "relu", True)
    with pytest.raises(RuntimeError, match=r"sums must be \[B, 2C \+ 1\]"):
        RAW.multi_batch_norm_backward(x, x, None, None, mean, var, None, sums, None, None, True, EPS, None, True)
    with pytest.raises(RuntimeError, match=r"mean must be \[B, C\]"):
        RAW.multi_batch_norm_update_([mean[0]] * 3, [var[0]] * 3, [], mean, var, torch.tensor([8, 8]), 0.1)
    with pytest.raises(RuntimeError, match="one running_mean"):
        RAW.multi_batch_norm_update_([*mean], [*var], [torch.tensor(0)], mean, var, torch.tensor([8, 8]), 0.1)
    with pytest.raises(RuntimeError, match="momentum None needs a counter"):
        RAW.multi_batch_norm_update_([*mean], [*var], [], mean, var, torch.tensor([8, 8]), None)
    with pytest.raises(RuntimeError, match=r"moments must be \[R, B, 2C \+ 1\]"):
        RAW.multi_batch_norm_merge(torch.zeros(2, 7, dtype=torch.float64), torch.float32)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("multi_batch_norm_statistics", lambda x, *_: (x, 3, IDS, None)),
        ("multi_batch_norm_merge", lambda *_: (torch.rand(2, 3, 11, dtype=torch.float64), torch.float32)),
        ("multi_batch_norm_backward_sums", lambda x, t: (x, x, *t, None, IDS, None, EPS, "relu")),
        ("multi_batch_norm_backward", lambda x, t: (x, x, *t, None, None, IDS, None, True, EPS, "relu", True)),
        ("multi_batch_norm_mixture_backward", lambda x, t: (x, x, *t, torch.rand(9, 3), EPS, True)),
    ],
)
def test_opcheck_of_the_parts(name, arguments):
    x = batch("planes_gathered", torch.float32)
    torch.library.opcheck(getattr(RAW, name).default, arguments(x, tables(3, 5, torch.float32)))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_the_plain_update_rounds_nothing_to_float32(momentum):
    mean, var, running_mean, running_var = (torch.rand(1, 3, dtype=torch.float64) + 0.5 for _ in range(4))
    share = 1 / 7 if momentum is None else momentum
    expected_mean = running_mean + share * (mean - running_mean)
    expected_var = running_var + share * (var * (10 / 9) - running_var)
    reference.update([running_mean[0]], [running_var[0]], [torch.tensor(6)], mean, var, torch.tensor([10]), momentum)
    torch.testing.assert_close(running_mean, expected_mean, rtol=1e-14, atol=0)
    torch.testing.assert_close(running_var, expected_var, rtol=1e-14, atol=0)
