"""What tests of several ops share: samples on a device, both doors of an op, and comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from op_case import OpCase, Sample
from torch import Tensor

from mdprop_ext.info import collect


def moved(value: Any, device: str | torch.device) -> Any:
    """A sample, or the arguments of a call, with all of their tensors on a device."""
    if isinstance(value, Sample):
        return value.map(lambda tensor: tensor.to(device))
    if isinstance(value, tuple | list):
        return type(value)(moved(item, device) for item in value)
    return value.to(device) if isinstance(value, Tensor) else value


def is_emulated() -> bool:
    """Whether this build runs its CUDA kernels on the CPU, where each thread has its price."""
    return bool((collect()["extension"] or {}).get("emulated"))


def size(sample: Sample) -> int:
    """The number of values in a sample's tensors."""
    return sum(a.numel() for a in sample.args if isinstance(a, Tensor))


def samples(case: OpCase, dtype: torch.dtype, device: str, *, every_variant: bool = False) -> Iterator[Sample]:
    """The samples of a row on a device, of the same values on each.

    In the emulation those of up to 2^14 values; with ``every_variant`` also the smallest sample of a variant that has
    none of these, up to 2^18 values: the larger ones are there for the threads of a CPU.
    """
    chosen = list(case.samples(dtype))
    if is_emulated():
        reached = {sample.variant for sample in chosen if size(sample) <= 1 << 14}
        smallest = {sample.variant: sample for sample in sorted(chosen, key=size, reverse=True)}
        rest = [sample for variant, sample in smallest.items() if variant not in reached and size(sample) <= 1 << 18]
        chosen = [sample for sample in chosen if size(sample) <= 1 << 14] + (rest if every_variant else [])
    return (moved(sample, device) for sample in chosen)


def gradcheck_samples(case: OpCase, device: str) -> Iterator[Sample]:
    """The samples of a row for derivatives, on a device."""
    return (moved(sample, device) for sample in case.gradcheck_samples())


def raw_args(case: OpCase, sample: Sample) -> tuple[Any, ...]:
    """The arguments of the op itself, all on the device of the sample."""
    return moved(case.raw_args(sample), sample.args[0].device)


def assert_near(
    results: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: tuple[float, float], what: str
) -> None:
    for i, (result, wanted) in enumerate(zip(results, expected, strict=True)):
        relative, absolute = (0, 0) if not result.is_floating_point() else tolerance
        torch.testing.assert_close(
            result.double().cpu(), wanted.double().cpu(), rtol=relative, atol=absolute, equal_nan=True,
            msg=lambda text, i=i: f"{what}, result {i}: {text}",
        )  # fmt: skip


def bits(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().flatten().contiguous().view(torch.uint8)


def assert_same_bits(results: tuple[Tensor, ...], expected: tuple[Tensor, ...], what: str) -> None:
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


def function_door(case: OpCase, sample: Sample) -> Callable[..., Tensor]:
    """The op's autograd.Function of the sample's positional arguments: its first result."""
    return lambda *args: first(case.autograd_function.apply(*raw_args(case, Sample("raw", args, sample.kwargs))))


def raw_door(case: OpCase, sample: Sample) -> Callable[..., Tensor]:
    """The op as torch sees it, of the sample's positional arguments: its first result."""
    return lambda *args: first(case.raw(*raw_args(case, Sample("raw", args, sample.kwargs))))


def small(case: OpCase, dtype: torch.dtype, device: str) -> list[Sample]:
    """One sample a variant: enough where the values do not matter."""
    chosen = {sample.variant: sample for sample in case.samples(dtype)}
    few = [s for s in chosen.values() if size(s) < (1 << 13 if is_emulated() else 1 << 17)]
    return [moved(sample, device) for sample in few]
