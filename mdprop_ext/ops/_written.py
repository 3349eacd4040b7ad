"""Tensors that an op writes in place: what is asked of them, and what autograd is told.

The schema of a raw op says what it writes, which is enough in a trace; otherwise torch leaves the rest to the caller.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mdprop_ext.ops import _check


def check_no_gradient(name: str, value: Tensor) -> None:
    """Raises ValueError if a graph that is being recorded would need the gradient of what is written."""
    if value.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            f"{name}: expected a tensor that requires no gradient, since it is written in place; detach it or use "
            "torch.no_grad()"
        )


def check_apart(
    name: str, value: Tensor, others: Sequence[Tensor | None], names: Sequence[str], twin: str = ""
) -> None:
    """Raises ValueError if ``value`` overlaps one of ``others``.

    Args:
        name: Name of the argument.
        value: A dense tensor. Where it has no memory, in a trace and on the meta device, all is well.
        others: Each counts from its first value to its last, with the memory that its strides skip.
        names: Their names.
        twin: The name of the one that ``value`` may be, if it is all of it.
    """
    start = _address(value)
    if start == 0:
        return
    end = start + value.nbytes
    for index, other in enumerate(others):
        if other is None:
            continue
        first = _address(other)
        if first >= end or first + _extent(other) <= start:
            continue
        same = first == start and other.dtype == value.dtype and _steps(other) == _steps(value)
        if not same or names[index] != twin:
            raise ValueError(f"{name}: expected memory of its own, got a tensor that overlaps {names[index]}")


def mark(tensors: list[Tensor]) -> None:
    """Tells autograd that ``tensors`` are about to be written, so that graphs that saved them refuse to use them."""
    if not torch.compiler.is_compiling():
        torch.autograd.graph.increment_version(tensors)


def _address(tensor: Tensor) -> int:
    # Tensors of a trace have a type of their own, and no address; those of a function transform raise.
    if type(tensor) not in _check.PLAIN:
        return 0
    try:
        return tensor.data_ptr()
    except RuntimeError:
        return 0


def _steps(tensor: Tensor) -> list[int]:
    """The strides that count."""
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]


def _extent(tensor: Tensor) -> int:
    """Bytes from the first value to the end of the last."""
    if tensor.is_contiguous():
        return tensor.nbytes
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()
