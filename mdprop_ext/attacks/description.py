"""Objects as text: short for people, complete enough to tell settings apart."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import torch
from torch import Tensor, nn

from mdprop_ext.attacks.rows import map_tensors


def short(value: Any) -> str:
    """One word or so for a representation: radii as parts of 255, tensors by their shape, functions by their name."""
    if isinstance(value, float):
        parts = value * 255
        whole = 0 < value < 1 and abs(parts - round(parts)) < 1e-6
        return f"{round(parts)}/255" if whole else f"{value:g}"
    if isinstance(value, Tensor):
        return f"tensor{list(value.shape)}"
    if isinstance(value, tuple):
        return f"({', '.join(map(short, value))})"
    name = getattr(value, "__name__", None)
    return name if isinstance(name, str) else _without_addresses(repr(value))


def described(value: Any) -> Any:
    """Tells a value by what JSON can hold: the same in every process, another where a tensor or a weight differs."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return f"{value.dtype}{list(value.shape)} {digest(value)}"
    if isinstance(value, nn.Module):
        # Beside the state dict, which leaves some buffers out.
        return f"{_without_addresses(repr(value))} {digest([value.state_dict(), dict(value.named_buffers())])}"
    if isinstance(value, tuple | list):
        return [described(entry) for entry in value]
    return _without_addresses(repr(value))


def digest(value: Any) -> str:
    """A hash of all tensors in nested tuples, lists and dicts, and of what stands beside them."""
    hashed = hashlib.blake2b(digest_size=16)
    structure = map_tensors(lambda tensor: f"{tensor.dtype}{list(tensor.shape)}", value)
    hashed.update(_without_addresses(repr(structure)).encode())
    tensors: list[Tensor] = []
    map_tensors(tensors.append, value)
    for tensor in tensors:
        hashed.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def _without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)
