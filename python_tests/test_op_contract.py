"""What every op promises, asked of every row of op_cases.py, on the CPU and on a CUDA device where there is one.

Samples are made on the CPU, so that every device gets the same values; the oracle computes there.
"""

from __future__ import annotations

import pytest
import torch
import torch._dynamo.testing
from op_cases import OP_CASES
from op_checks import (
    assert_near,
    assert_same_bits,
    first,
    function_door,
    gradcheck_samples,
    moved,
    raw_args,
    raw_door,
    samples,
    small,
    with_gradients,
)
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

CASES = [pytest.param(case, id=case.name) for case in OP_CASES]
BY_DTYPE = [pytest.param(case, dtype, id=f"{case.name}-{dtype}") for case in OP_CASES for dtype in case.dtypes]
FIRST = [pytest.param(case, case.dtypes[0], id=case.name) for case in OP_CASES]
DIFFERENTIABLE = [pytest.param(case, id=case.name) for case in OP_CASES if case.differentiable]


@pytest.mark.parametrize(("case", "dtype"), BY_DTYPE)
def test_equals_the_float64_oracle(case, dtype, device):
    for sample in samples(case, dtype, "cpu", every_variant=dtype == case.dtypes[0]):
        expected = case.call(case.oracle, sample)
        assert_near(case.call(case.function, moved(sample, device)), expected, case.tolerance[dtype], sample.name)


@pytest.mark.parametrize(("case", "dtype"), BY_DTYPE)
def test_equals_the_reference(case, dtype, device):
    for sample in samples(case, dtype, device):
        expected = case.call(case.reference, sample)
        relative, absolute = case.tolerance[dtype]
        assert_near(case.call(case.function, sample), expected, (2 * relative, 2 * absolute), sample.name)


@pytest.mark.parametrize(("case", "dtype"), FIRST)
def test_samples_reach_every_variant(case, dtype):
    assert {sample.variant for sample in case.samples(dtype)} == case.variants


@pytest.mark.parametrize(("case", "dtype"), BY_DTYPE)
def test_strided_inputs_give_the_same_bits(case, dtype, device):
    def strided(tensor: Tensor) -> Tensor:
        return torch.stack([tensor, tensor], -1)[..., 0]

    for sample in small(case, dtype, device):
        dense = sample.map(Tensor.contiguous)
        expected = case.call(case.function, dense)
        inputs = [i for i in range(len(sample.args)) if i not in case.mutates]
        args = tuple(strided(a) if i in inputs and isinstance(a, Tensor) else a for i, a in enumerate(dense.args))
        results = case.function(*args, **dense.kwargs)
        results = results if isinstance(results, tuple) else (results,)
        assert_same_bits(results, expected[: len(results)], sample.name)


@pytest.mark.parametrize(("case", "dtype"), [p for p in FIRST if p.values[0].keeps_channels_last])
def test_memory_format_is_preserved(case, dtype, device):
    for sample in small(case, dtype, device):
        x = sample.args[0]
        result = case.function(*sample.map(torch.clone).args, **sample.kwargs)
        assert result.shape == x.shape
        assert result.stride() == torch.empty_like(x).stride(), sample.name


@pytest.mark.parametrize(("case", "dtype"), BY_DTYPE)
def test_same_bits_on_every_run_and_number_of_threads(case, dtype, device):
    for sample in small(case, dtype, device) if dtype != case.dtypes[0] else samples(case, dtype, device):
        torch.set_num_threads(2)
        first = case.call(case.function, sample)
        assert_same_bits(case.call(case.function, sample), first, f"{sample.name}, second run")
        torch.set_num_threads(1)
        assert_same_bits(case.call(case.function, sample), first, f"{sample.name}, one thread")


@pytest.mark.parametrize("case", DIFFERENTIABLE)
@pytest.mark.parametrize("door", [function_door, raw_door])
def test_gradients_through_both_doors(case, door, device):
    for sample in gradcheck_samples(case, device):
        assert gradcheck(door(case, sample), with_gradients(case, sample).args)


@pytest.mark.parametrize("case", DIFFERENTIABLE)
def test_second_derivative_is_right_or_refused(case, device):
    for sample in list(gradcheck_samples(case, device))[:4]:
        inputs, function = with_gradients(case, sample).args, raw_door(case, sample)
        if case.twice_differentiable:
            assert gradgradcheck(function, inputs)
            continue
        wanted = [inputs[i] for i in case.differentiable if inputs[i] is not None]
        gradient = torch.autograd.grad(function(*inputs).square().sum(), wanted, create_graph=True)[0]
        with pytest.raises(RuntimeError, match=case.name):
            gradient.sum().backward()


@pytest.mark.parametrize("case", DIFFERENTIABLE)
def test_backward_accepts_expanded_and_strided_gradients(case, device):
    for sample in gradcheck_samples(case, device):
        results = []
        for shape_gradient in (
            lambda y: torch.ones_like(y),
            lambda y: torch.ones((), dtype=y.dtype, device=y.device).expand(y.shape),
            lambda y: torch.ones(*y.shape, 2, dtype=y.dtype, device=y.device)[..., 0],
        ):
            copy = with_gradients(case, sample)
            wanted = [copy.args[i] for i in case.differentiable if copy.args[i] is not None]
            y = first(case.raw(*raw_args(case, copy)))
            results.append(torch.autograd.grad(y, wanted, shape_gradient(y)))
        assert_same_bits(results[1], results[0], "expanded")
        assert_same_bits(results[2], results[0], "strided")


@pytest.mark.parametrize("case", [p for p in CASES if not p.values[0].differentiable])
def test_results_carry_no_gradient(case, device):
    # Of a floating dtype where there is one: no other tensor can ask for a gradient.
    dtype = max(case.dtypes, key=lambda dtype: dtype.is_floating_point)
    sample = next(samples(case, dtype, device))
    expected = first(case.call(case.function, sample))
    for door in (function_door, raw_door) if hasattr(case, "autograd_function") else (raw_door,):
        leaves = sample.map(lambda t: t.clone().requires_grad_(t.is_floating_point()))
        result = door(case, leaves)(*leaves.args)
        assert not result.requires_grad
        assert torch.equal(result, expected)


@pytest.mark.parametrize(("case", "dtype"), FIRST)
def test_opcheck(case, dtype, device):
    for sample in small(case, dtype, device)[:6]:
        torch.library.opcheck(case.raw, raw_args(case, with_gradients(case, sample)))


@pytest.mark.parametrize(("case", "dtype"), FIRST)
def test_compiles_to_one_graph_without_recompiling(case, dtype, device):
    torch._dynamo.reset()
    sample = small(case, dtype, device)[0]
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(case.function, backend=counter, fullgraph=True)
    for _ in range(3):
        assert_same_bits(case.call(compiled, sample), case.call(case.function, sample), sample.name)
    assert counter.frame_count == 1


@pytest.mark.parametrize(("case", "dtype"), FIRST)
def test_autocast_policy(case, dtype, device):
    """Under autocast floating inputs keep their dtype, or are computed in float32 where the op's row says so."""
    for sample in small(case, dtype, device)[:3]:
        expected = case.call(case.function, sample)
        with torch.autocast(device, dtype=torch.bfloat16):
            assert_same_bits(case.call(case.function, sample), expected, sample.name)


@pytest.mark.parametrize("case", CASES)
def test_errors_name_the_argument(case):
    assert case.errors
    for bad in case.errors:
        with pytest.raises(bad.error, match=bad.match):
            case.function(*bad.args, **bad.kwargs)
