"""The values of several branches as one table, as the op takes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def stack(owners: Sequence[nn.Module], name: str, dtype: torch.dtype, rows: int) -> Tensor | None:
    """One parameter or buffer of all branches as ``[rows, C]``; a single owner's is expanded."""
    values = [getattr(owner, name) for owner in owners]
    if values[0] is None:
        return None
    stacked: Tensor = values[0].expand(rows, -1) if len(values) == 1 else torch.stack(values)
    return stacked.to(dtype)
