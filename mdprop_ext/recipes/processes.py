"""What the processes of a data-parallel run tell each other; without ``torch.distributed`` nothing, at no cost."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator
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
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for dtype in sorted({parameter.dtype for parameter in trained}, key=str):
        gradients = [parameter.grad for parameter in trained if parameter.grad is not None and parameter.dtype == dtype]
        joined = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(joined)
        parts = torch.split(joined / world_size, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def average_numbers(numbers: dict[str, float]) -> dict[str, float]:
    """Returns the means over the processes, which all have the same names."""
    everywhere = gathered(numbers)
    return {name: sum(each[name] for each in everywhere) / len(everywhere) for name in numbers}


def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrites tensors by those of the first process."""
    if rank_and_world_size()[1] > 1:
        for tensor in tensors:
            distributed.broadcast(tensor, 0)


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
