"""What every op promises, asked of every row of op_cases.py."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo.testing
from op_case import OpCase, Sample
from op_cases import OP_CASES
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

CASES = [pytest.param(case, id=case.name) for case in OP_CASES]
BY_DTYPE = [pytest.param(case, dtype, id=f"{case.name}-{dtype}") for case in OP_CASES for dtype in case.dtypes]
FIRST = [pytest.param(case, case.dtypes[0], id=case.name) for case in OP_CASES]
DIFFERENTIABLE = [pytest.param(case, id=case.name) for case in OP_CASES if case.differentiable]


def assert_near(results: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: tuple[float, float], what: str):
    for i, (result, wanted) in enumerate(zip(results, expected, strict=True)):
        relative, absolute = (0, 0) if not result.is_floating_point() else tolerance
        torch.testing.assert_close(
            result.double(), wanted.double(), rtol=relative, atol=absolute, equal_nan=True,
            msg=lambda text, i=i: f"{what}, result {i}: {text}",
        )  # fmt: skip


def bits(tensor: Tensor) -> Tensor:
    return tensor.detach().flatten().contiguous().view(torch.uint8)


def assert_same_bits(results: tuple[Tensor, ...], expected: tuple[Tensor, ...], what: str):
    for i, (result, wanted) in enumerate(zip(results, expected, strict=True)):
        assert result.dtype == wanted.dtype, what
        assert result.shape == wanted.shape, what
        assert bits(result).equal(bits(wanted)), f"{what}, result {i}"


def first(result: Tensor | tuple[Tensor, ...]) -> Tensor:
    return result[0] if isinstance(result, tuple) else result


def with_gradients(case: OpCase, sample: Sample) -> Sample:
    """A copy of the sample whose differentiable arguments require a gradient."""
    copy = sample.map(torch.clone)
    for i in case.differentiable:
        if copy.args[i] is not None:
            copy.args[i].requires_grad_()
    return copy


def function_door(case: OpCase, sample: Sample):
    """The op's autograd.Function of the sample's positional arguments: its first result."""
    return lambda *args: first(case.autograd_function.apply(*case.raw_args(Sample("raw", args, sample.kwargs))))


def raw_door(case: OpCase, sample: Sample):
    """The op as torch sees it, of the sample's positional arguments: its first result."""
    return lambda *args: first(case.raw(*case.raw_args(Sample("raw", args, sample.kwargs))))


def small(case: OpCase, dtype: torch.dtype) -> list[Sample]:
    """One sample a variant: enough where the values do not matter."""
    chosen = {sample.variant: sample for sample in case.samples(dtype)}
    return [s for s in chosen.values() if sum(a.numel() for a in s.args if isinstance(a, Tensor)) < 1 << 17]


@pytest.mark.parametrize(("case", "dtype"), BY_DTYPE)
def test_equals_the_float64_oracle(case, dtype):
    for sample in case.samples(dtype):
        expected = case.call(case.oracle, sample)
        assert_near(case.call(case.function, sample), expected, case.tolerance[dtype], sample.name)


@pytest.mark.parametrize(("case", "dtype"), BY_DTYPE)
def test_equals_the_reference(case, dtype):
    for sample in case.samples(dtype):
        expected = case.call(case.reference, sample)
        relative, absolute = case.tolerance[dtype]
        assert_near(case.call(case.function, sample), expected, (2 * relative, 2 * absolute), sample.name)


@pytest.mark.parametrize(("case", "dtype"), FIRST)
def test_samples_reach_every_variant(case, dtype):
    assert {sample.variant for sample in case.samples(dtype)} == case.variants


@pytest.mark.parametrize(("case", "dtype"), BY_DTYPE)
def test_strided_inputs_give_the_same_bits(case, dtype):
    def strided(tensor: Tensor) -> Tensor:
        return torch.stack([tensor, tensor], -1)[..., 0]

    for sample in small(case, dtype):
        dense = sample.map(Tensor.contiguous)
        expected = case.call(case.function, dense)
        moved = [i for i in range(len(sample.args)) if i not in case.mutates]
        args = tuple(strided(a) if i in moved and isinstance(a, Tensor) else a for i, a in enumerate(dense.args))
        results = case.function(*args, **dense.kwargs)
        results = results if isinstance(results, tuple) else (results,)
        assert_same_bits(results, expected[: len(results)], sample.name)


@pytest.mark.parametrize(("case", "dtype"), [p for p in FIRST if p.values[0].keeps_channels_last])
def test_memory_format_is_preserved(case, dtype):
    for sample in small(case, dtype):
        x = sample.args[0]
        result = case.function(*sample.map(torch.clone).args, **sample.kwargs)
        assert result.shape == x.shape
        assert result.stride() == torch.empty_like(x).stride(), sample.name


@pytest.mark.parametrize(("case", "dtype"), BY_DTYPE)
def test_same_bits_on_every_run_and_number_of_threads(case, dtype):
    for sample in small(case, dtype) if dtype != case.dtypes[0] else case.samples(dtype):
        torch.set_num_threads(2)
        first = case.call(case.function, sample)
        assert_same_bits(case.call(case.function, sample), first, f"{sample.name}, second run")
        torch.set_num_threads(1)
        assert_same_bits(case.call(case.function, sample), first, f"{sample.name}, one thread")


@pytest.mark.parametrize("case", DIFFERENTIABLE)
@pytest.mark.parametrize("door", [function_door, raw_door])
def test_gradients_through_both_doors(case, door):
    for sample in case.gradcheck_samples():
        assert gradcheck(door(case, sample), with_gradients(case, sample).args)


@pytest.mark.parametrize("case", DIFFERENTIABLE)
def test_second_derivative_is_right_or_refused(case):
    for sample in list(case.gradcheck_samples())[:4]:
        inputs, function = with_gradients(case, sample).args, raw_door(case, sample)
        if case.twice_differentiable:
            assert gradgradcheck(function, inputs)
            continue
        wanted = [inputs[i] for i in case.differentiable if inputs[i] is not None]
        gradient = torch.autograd.grad(function(*inputs).square().sum(), wanted, create_graph=True)[0]
        with pytest.raises(RuntimeError, match=case.name):
            gradient.sum().backward()


@pytest.mark.parametrize("case", DIFFERENTIABLE)
def test_backward_accepts_expanded_and_strided_gradients(case):
    for sample in case.gradcheck_samples():
        results = []
        for shape_gradient in (
            lambda y: torch.ones_like(y),
            lambda y: torch.ones((), dtype=y.dtype).expand(y.shape),
            lambda y: torch.ones(*y.shape, 2, dtype=y.dtype)[..., 0],
        ):
            copy = with_gradients(case, sample)
            wanted = [copy.args[i] for i in case.differentiable if copy.args[i] is not None]
            y = first(case.raw(*case.raw_args(copy)))
            results.append(torch.autograd.grad(y, wanted, shape_gradient(y)))
        assert_same_bits(results[1], results[0], "expanded")
        assert_same_bits(results[2], results[0], "strided")


@pytest.mark.parametrize("case", [p for p in CASES if not p.values[0].differentiable])
def test_results_carry_no_gradient(case):
    sample = next(iter(case.samples(case.dtypes[0])))
    if not sample.args[0].is_floating_point():
        return
    sample = sample.map(lambda t: t.clone().requires_grad_())
    for door in (function_door, raw_door):
        assert not door(case, sample)(*sample.args).requires_grad


@pytest.mark.parametrize(("case", "dtype"), FIRST)
def test_opcheck(case, dtype):
    for sample in small(case, dtype)[:6]:
        torch.library.opcheck(case.raw, case.raw_args(with_gradients(case, sample)))


@pytest.mark.parametrize(("case", "dtype"), FIRST)
def test_compiles_to_one_graph_without_recompiling(case, dtype):
    torch._dynamo.reset()
    sample = small(case, dtype)[0]
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(case.function, backend=counter, fullgraph=True)
    for _ in range(3):
        assert_same_bits(case.call(compiled, sample), case.call(case.function, sample), sample.name)
    assert counter.frame_count == 1


@pytest.mark.parametrize(("case", "dtype"), FIRST)
def test_autocast_policy(case, dtype):
    """Under autocast floating inputs keep their dtype, or are computed in float32 where the op's row says so."""
    for sample in small(case, dtype)[:3]:
        expected = case.call(case.function, sample)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert_same_bits(case.call(case.function, sample), expected, sample.name)


@pytest.mark.parametrize("case", CASES)
def test_errors_name_the_argument(case):
    assert case.errors
    for bad in case.errors:
        with pytest.raises(bad.error, match=bad.match):
            case.function(*bad.args, **bad.kwargs)
