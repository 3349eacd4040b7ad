"""Layers under autocast on a CUDA device."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mdprop_ext.nn import strip_branches, use_branches


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_of_one_branch_equals_plain_batch_norm(network, dtype):
    model = network()
    plain = strip_branches(copy.deepcopy(model), keep="main")
    x = torch.randn(6, 3, 16, 16, device="cuda")
    outputs = []
    for each in (model, plain):
        with torch.autocast("cuda", dtype=dtype):
            outputs.append(each(x))
        outputs[-1].float().square().sum().backward()
    assert outputs[0].dtype == dtype
    tolerance = 16 * torch.finfo(dtype).eps
    torch.testing.assert_close(*outputs, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(model[1].running_var, plain[1][0].running_var, rtol=1e-3, atol=1e-3)
    found, wanted = model[1].weight.grad, plain[1][0].weight.grad
    assert found.dtype == torch.float32
    assert (found - wanted).norm() <= tolerance * wanted.norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_layer_keeps_the_dtype_that_it_is_given(network, dtype):
    model = network()
    seen = []
    for layer in model:
        layer.register_forward_hook(lambda layer, inputs, output: seen.append((layer, inputs[0].dtype, output.dtype)))
    ids = torch.tensor([0, 1, 1, 0, 1, 0], device="cuda")
    with use_branches(model, ids), torch.autocast("cuda", dtype=dtype):
        model(torch.randn(6, 3, 16, 16, device="cuda"))
    norms = [entry[1:] for entry in seen if isinstance(entry[0], nn.BatchNorm2d)]
    assert norms == [(dtype, dtype)] * 2
    assert model[1].running_mean.dtype == model[1].aux_bn[0].running_mean.dtype == torch.float32
