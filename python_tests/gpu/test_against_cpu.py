"""The ops on a CUDA device against the ops on the CPU."""

from __future__ import annotations

import pytest
import torch
from op_case import OpCase, Sample
from op_cases import OP_CASES
from op_checks import assert_near, assert_same_bits, first, moved, raw_args, small, with_gradients
from torch import Tensor

from mdprop_ext import ops

BY_DTYPE = [pytest.param(case, dtype, id=f"{case.name}-{dtype}") for case in OP_CASES for dtype in case.dtypes]
DIFFERENTIABLE = [param for param in BY_DTYPE if param.values[0].differentiable]


def same_on_every_device(case: OpCase, sample: Sample) -> bool:
    """Whether floating results too must be equal bit for bit: where nothing is summed, and random bits."""
    options = sample.kwargs
    return case.name == "random_start" or (options.get("norm") == "linf" and options.get("velocity") is None)


def without_payload(tensor: Tensor) -> Tensor:
    """The tensor with every NaN replaced by the same one."""
    return torch.where(tensor.isnan(), torch.nan, tensor) if tensor.is_floating_point() else tensor


@pytest.mark.parametrize(("case", "dtype"), BY_DTYPE)
def test_results_equal_those_of_the_cpu(case, dtype):
    for sample in case.samples(dtype):
        expected = case.call(case.function, sample)
        results = case.call(case.function, moved(sample, "cuda"))
        relative, absolute = case.tolerance[dtype]
        assert_near(results, expected, (2 * relative, 2 * absolute), sample.name)  # integers bit for bit
        if same_on_every_device(case, sample):
            assert_same_bits(tuple(map(without_payload, results)), tuple(map(without_payload, expected)), sample.name)


@pytest.mark.parametrize(("case", "dtype"), DIFFERENTIABLE)
def test_gradients_equal_those_of_the_cpu(case, dtype):
    # Each value is a sum of many: their error is measured by the length of the whole.
    bound = max(16 * case.tolerance[dtype][0], 4 * torch.finfo(dtype).eps)
    for sample in small(case, dtype, "cpu"):
        gradients = []
        for device in ("cpu", "cuda"):
            copy = with_gradients(case, moved(sample, device))
            wanted = [copy.args[i] for i in case.differentiable if copy.args[i] is not None]
            result = first(case.raw(*raw_args(case, copy)))
            torch.manual_seed(1)
            upstream = torch.randn(result.shape, dtype=result.dtype).to(device)
            gradients.append([g.double().cpu() for g in torch.autograd.grad(result, wanted, upstream)])
        for expected, found in zip(*gradients, strict=True):
            finite = expected.isfinite()
            assert found.isfinite().equal(finite), sample.name
            error = (found - expected)[finite].norm()
            assert error <= bound * expected[finite].norm() + 1e-30, f"{sample.name}: {error}"


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("shape", [(140, 16_400), (5, 300_001)])
def test_teams_of_blocks_that_take_several_samples(shape, norm, momentum):
    origin = torch.rand(shape)
    x, grad = (origin + 0.02 * torch.randn(shape)).clamp(0, 1), torch.randn(shape)
    active = torch.arange(shape[0]) % 3 != 1
    radius = {"linf": 0.03, "l2": 0.03 * shape[1] ** 0.5, "l1": 0.005 * shape[1]}[norm]

    def run(device: str) -> Tensor:
        velocity = {"velocity": torch.ones(shape, device=device)} if momentum else {}
        tensors = (tensor.to(device) for tensor in (x, grad, origin))
        options = {"norm": norm, "step": radius / 4, "radius": radius, "active": active.to(device)}
        return ops.pgd_step(*tensors, **options, **velocity).cpu()

    torch.testing.assert_close(run("cuda"), run("cpu"), rtol=1e-4, atol=1e-5)
