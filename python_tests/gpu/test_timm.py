"""Converted models of timm, where it is installed: with one branch in use they are what they were."""

from __future__ import annotations

import copy

import pytest
import torch

from mdprop_ext.nn import convert_multi_bn

NAMES = ("resnet18", "efficientnet_b0")
FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


def pair(name, memory_format, dtype):
    """A model as timm makes it, and its converted copy."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    plain = timm.create_model(name, num_classes=7).to("cuda", dtype).to(memory_format=FORMATS[memory_format])
    return plain, convert_multi_bn(copy.deepcopy(plain), ("main", "adv"), fuse_activation=True)


def batch(dtype):
    return torch.randn(6, 3, 64, 64, device="cuda", dtype=dtype)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_training_step_equals_plain_batch_norm(name, memory_format):
    # In float64, where depth does not multiply rounding errors into something that needs a loose tolerance.
    plain, converted = pair(name, memory_format, torch.float64)
    x = batch(torch.float64).contiguous(memory_format=FORMATS[memory_format])
    outputs = [model.train()(x) for model in (plain, converted)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-9, atol=1e-9)
    for output in outputs:
        output.square().sum().backward()
    parameters, buffers = dict(converted.named_parameters()), dict(converted.named_buffers())
    whole = torch.stack([parameter.grad.norm() for parameter in plain.parameters()]).norm()
    for parameter_name, parameter in plain.named_parameters():
        assert (parameters[parameter_name].grad - parameter.grad).norm() <= 1e-9 * whole, parameter_name
    for buffer_name, buffer in plain.named_buffers():
        torch.testing.assert_close(buffers[buffer_name], buffer, rtol=1e-9, atol=1e-9, msg=buffer_name)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_evaluation_equals_plain_batch_norm(name, memory_format, dtype):
    plain, converted = pair(name, memory_format, dtype)
    with torch.no_grad():
        x = batch(dtype).contiguous(memory_format=FORMATS[memory_format])
        expected, found = (model.eval()(x).float() for model in (plain, converted))
    assert (found - expected).norm() <= 64 * torch.finfo(dtype).eps * expected.norm()
