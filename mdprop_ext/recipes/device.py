"""Where training runs."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from mdprop_ext._arguments import check_choice

DeviceName = Literal["auto", "cpu", "cuda"]


def resolve_device(name: str) -> torch.device:
    """Finds the device that a name stands for.

    Args:
        name: ``"cpu"``; ``"cuda"``, the current CUDA device; ``"auto"``: that one where there is one, else the CPU.

    Returns:
        The device.

    Raises:
        ValueError: If the name is another, or there is no such device.
    """
    check_choice("device", name, get_args(DeviceName))
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError("device: expected auto or cpu, since torch finds no CUDA device, got 'cuda'")
    return torch.device("cuda", torch.cuda.current_device())
