"""What the processes of a data-parallel run tell each other; without ``torch.distributed`` nothing, at no cost."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from mdprop_ext._distributed import rank_and_world_size

T = TypeVar("T")


def is_first_process() -> bool:
    """Tells whether this process is the one that writes."""
    return rank_and_world_size()[0] == 0


@contextmanager
def joined_processes(device: str) -> Iterator[None]:
    """Joins the processes that ``torchrun`` started, where it did, for as long as the block runs.

    Each of them waits at the end of its block for the others, unless the block raises.

    Args:
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``; each process takes the CUDA device of its number on the machine.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield
        return
    on_cuda = device != "cpu" and torch.cuda.is_available()
    if on_cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # Its functions keep the group that is there when it is imported, as Adam's first step does, as their default: the
    # group's threads would then outlive it, and abort the process if it ends while they work.
    importlib.import_module("torch.distributed.nn")
    # The others wait for as long as the first one measures.
    distributed.init_process_group("nccl" if on_cuda else "gloo", timeout=timedelta(days=7))
    try:
        yield
        with suppress(RuntimeError):  # of a process that has failed, which says why itself
            distributed.barrier()
    finally:
        distributed.destroy_process_group()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces every gradient by its mean over the processes; one that a process lacks counts as zero."""
    world_size = rank_and_world_size()[1]
    if world_size == 1:
        return
    gradients = []
    for parameter in parameters:
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            gradients.append(parameter.grad)
    for joined in _joined_by_dtype(gradients):
        distributed.all_reduce(joined)
        joined /= world_size


def average_numbers(numbers: dict[str, float]) -> dict[str, float]:
    """Returns the means over the processes, which all have the same names."""
    everywhere = gathered(numbers)
    return {name: sum(each[name] for each in everywhere) / len(everywhere) for name in numbers}


def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrites tensors by those of the first process."""
    if rank_and_world_size()[1] > 1:
        for joined in _joined_by_dtype(list(tensors)):
            distributed.broadcast(joined, 0)


def gathered(value: T) -> list[T]:
    """Returns the values of all processes in the order of ranks."""
    world_size = rank_and_world_size()[1]
    if world_size == 1:
        return [value]
    values: list[Any] = [None] * world_size
    distributed.all_gather_object(values, value)
    return values


def done_by_first(work: Callable[[], T]) -> T:
    """Lets the first process work, and returns the result to all."""
    rank, world_size = rank_and_world_size()
    result = [work() if rank == 0 else None]
    if world_size > 1:
        distributed.broadcast_object_list(result, 0)
    return result[0]  # type: ignore[return-value]


def _joined_by_dtype(tensors: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yields the values of all tensors of a dtype in a row, one dtype after another, and puts them back afterwards.

    One exchange of many values takes far less time than many exchanges of a few.
    """
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        alike = [tensor for tensor in tensors if tensor.dtype == dtype]
        joined = torch.cat([tensor.flatten() for tensor in alike])
        yield joined
        parts = torch.split(joined, [tensor.numel() for tensor in alike])
        for tensor, part in zip(alike, parts, strict=True):
            tensor.copy_(part.view_as(tensor))
