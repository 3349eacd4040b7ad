"""The argument checks of ops on packed codes."""

from __future__ import annotations

import torch
from torch import Tensor

from mdprop_ext.ops import _check


def check(name: str, packed: object, bits: int) -> None:
    """Raises unless ``packed`` is int64 ``[N, ceil(bits / 64)]``."""
    _check.tensor(name, packed)
    assert isinstance(packed, Tensor)
    if packed.dtype != torch.int64:
        raise TypeError(f"{name}: expected int64 words from pack_codes, got {packed.dtype}")
    words = (bits + 63) // 64
    if packed.dim() != 2 or packed.shape[1] != words:
        raise ValueError(f"{name}: expected [N, {words}] for {bits} bits, got {list(packed.shape)}")


def check_pair(queries: object, codes: object, bits: int) -> None:
    """Raises unless ``queries`` and ``codes`` are packed codes on one device."""
    check("queries", queries, bits)
    check("codes", codes, bits)
    assert isinstance(queries, Tensor)
    assert isinstance(codes, Tensor)
    if codes.device != queries.device:
        raise ValueError(f"codes: expected the device of queries, {queries.device}, got {codes.device}")
