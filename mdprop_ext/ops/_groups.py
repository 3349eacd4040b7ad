"""The ``groups`` argument of the top-k ops: ragged groups of queries, each searched among points of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from mdprop_ext.ops import _check


def split(
    groups: tuple[Tensor, Tensor] | None, num_queries: int, num_points: int, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """Checks ``groups`` and returns its query offsets and point offsets ``[G + 1]``, or two Nones.

    Args:
        groups: None, or two int64 tensors of one length that increase from 0 to the number of rows.
        num_queries: Number of queries Q.
        num_points: Number of points N.
        device: Where both must be. Values are checked on the CPU only, so that nothing waits for a GPU.

    Raises:
        TypeError: If ``groups`` is not a pair of int64 tensors.
        ValueError: If shapes, devices or values do not fit.
    """
    if groups is None:
        return None, None
    if not isinstance(groups, tuple) or len(groups) != 2:
        raise TypeError(f"groups: expected a pair (query_offsets, point_offsets), got {type(groups).__name__}")
    for name, offsets, rows in zip(("query_offsets", "point_offsets"), groups, (num_queries, num_points), strict=True):
        _check_offsets(f"groups: {name}", offsets, rows, device)
    if groups[0].shape != groups[1].shape:
        raise ValueError(f"groups: expected offsets of one length, got {len(groups[0])} and {len(groups[1])}")
    return groups


def _check_offsets(name: str, offsets: Tensor, rows: int, device: torch.device) -> None:
    _check.tensor(name, offsets)
    if offsets.dtype != torch.int64:
        raise TypeError(f"{name}: expected int64, got {offsets.dtype}")
    if offsets.dim() != 1 or offsets.shape[0] == 0:
        raise ValueError(f"{name}: expected [G + 1] with G >= 0, got {list(offsets.shape)}")
    if offsets.device != device:
        raise ValueError(f"{name}: expected the device of queries, {device}, got {offsets.device}")
    if device.type != "cpu" or torch.compiler.is_compiling():
        return
    first, last = int(offsets[0]), int(offsets[-1])
    if (first, last) != (0, rows):
        raise ValueError(f"{name}: expected values from 0 to {rows}, got {first} to {last}")
    falls = torch.nonzero(offsets[1:] < offsets[:-1])
    if len(falls) > 0:
        before, after = offsets[int(falls[0]) :][:2].tolist()
        raise ValueError(f"{name}: expected values that do not decrease, got {before} before {after}")
