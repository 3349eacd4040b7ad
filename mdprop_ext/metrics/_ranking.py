"""Rankings of items for each query."""

from __future__ import annotations

from torch import Tensor


def without_own(indices: Tensor, own: Tensor) -> Tensor:
    """Removes from each ranking ``[Q, depth + 1]`` the item ``own[i]``, or the last where it is not among them."""
    kept = indices != own[:, None]
    kept[:, -1] &= ~kept.all(1)
    return indices[kept].view(len(own), -1)
