"""Ops where there are no values to look at: on the meta device, and in a graph that export traces without Dynamo."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mdprop_ext import ops
from mdprop_ext.reference import multi_batch_norm_backward as reference_backward

RAW = torch.ops.mdprop
TABLE = torch.rand(2, 3) + 0.5


class Routed(nn.Module):
    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        return ops.multi_batch_norm(x, TABLE, TABLE, TABLE, TABLE, branch=ids)


class Grouped(nn.Module):
    def forward(self, rows: Tensor, offsets: Tensor) -> Tensor:
        return ops.knn_topk(rows, rows, 2, metric="euclidean", groups=(offsets, offsets))[0]


class Step(nn.Module):
    def forward(self, x: Tensor, gradient: Tensor) -> Tensor:
        return ops.pgd_step(x, gradient, x, norm="linf", step=0.1, radius=0.2, velocity=torch.zeros_like(x))


@pytest.mark.parametrize(
    ("module", "name", "inputs", "others"),
    [
        (Routed(), "multi_batch_norm", (torch.rand(3, 3), torch.tensor([0, 1, 1])), torch.tensor([1, 0, 0])),
        (Grouped(), "knn_topk", (torch.rand(6, 3), torch.tensor([0, 2, 6])), torch.tensor([0, 3, 6])),
        (Step(), "pgd_step", (torch.rand(2, 5), torch.randn(2, 5)), torch.randn(2, 5)),
    ],
)
def test_exported_graphs_take_other_values(module, name, inputs, others):
    exported = torch.export.export(module, inputs, strict=False)
    assert f"mdprop.{name}" in str(exported.graph)
    for second in (inputs[1], others):
        assert torch.equal(exported.module()(inputs[0], second), module(inputs[0], second))


def test_on_the_meta_device_shapes_are_known():
    meta = torch.device("meta")
    x, ids, table = torch.empty(4, 3, 5, device=meta), torch.empty(4, dtype=torch.int64, device=meta), TABLE.to(meta)
    y = ops.multi_batch_norm(x, table, table, table, table, branch=ids)
    assert (y.shape, y.device) == (x.shape, meta)
    assert RAW._cuda_probe(x.movedim(0, 2)).stride() == (20, 4, 1)
    with pytest.raises(TypeError, match="like: expected"):
        RAW._cuda_probe(ids)
    RAW.multi_batch_norm_update_([table[0]], [table[1]], [], table[:1], table[:1], ids[:1], 0.1)


def test_tensors_must_be_together():
    x = torch.rand(4, 3)
    with pytest.raises(ValueError, match="probs: expected the device of x, cpu, got meta"):
        ops.multi_batch_norm_mixture(x, None, None, TABLE, TABLE, torch.rand(4, 2, device="meta"))
    with pytest.raises(ValueError, match="at least one branch, got B = 0"):
        ops.multi_batch_norm_mixture(x, None, None, TABLE[:0], TABLE[:0], torch.rand(4, 0))


def test_gradients_from_sums_of_other_processes_have_no_derivative():
    x = torch.rand(4, 3, requires_grad=True)
    saved = (torch.ones(4, 3), x, None, None, TABLE[:1], TABLE[:1], None, torch.rand(1, 7, dtype=torch.float64))
    gradient = RAW.multi_batch_norm_backward(*saved, None, None, True, 1e-5, None, False)[0]
    with pytest.raises(NotImplementedError, match="sums of other processes"):
        gradient.sum().backward()


@pytest.mark.parametrize("training", [True, False])
def test_the_formula_for_second_derivatives_equals_the_kernel_for_rows(training):
    x, grad = torch.randn(2, 7, 3, dtype=torch.float64)
    weight, bias, mean, var = torch.rand(4, 2, 3, dtype=torch.float64) + 0.5
    ids = torch.tensor([0, 1, 1, 0, 0, 1, 0])
    if training:
        _, mean, var, *_ = RAW.multi_batch_norm(x, weight, bias, *[None] * 3, ids, None, True, 1e-5, "relu")
    saved = (grad, x, weight, bias, mean, var, None)
    formula = reference_backward.differentiable_backward(*saved, ids, training, 1e-5, "relu")
    kernel = RAW.multi_batch_norm_backward(*saved, None, ids, None, training, 1e-5, "relu", True)
    for i in (0, 2, 3):
        torch.testing.assert_close(formula[i], kernel[i], rtol=1e-10, atol=1e-10)
