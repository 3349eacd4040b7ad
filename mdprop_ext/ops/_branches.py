"""The ``branch`` argument of multi_batch_norm: which branch each sample of a batch belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mdprop_ext.ops import _check


def split(x: Tensor, branch: Tensor | Sequence[int] | None) -> tuple[Tensor | None, Tensor | None]:
    """Splits ``branch`` into ids ``[N]`` and sizes ``[B]``, of which one at most is given."""
    _check.tensor("x", x)
    if branch is None:
        return None, None
    if isinstance(branch, Tensor):
        if branch.dtype != torch.int64 or branch.dim() != 1:
            raise TypeError(
                "branch: expected ids [N] or sizes [B] as an int64 tensor of one dimension, "
                f"got {branch.dtype} {list(branch.shape)}"
            )
        return (branch, None) if branch.shape[0] == x.shape[0] else (None, branch)
    sizes = list(branch)
    if not all(isinstance(size, int) for size in sizes):
        raise TypeError(f"branch: expected a sequence of ints, the sizes of the branches, got {branch!r}")
    return None, torch.tensor(sizes, dtype=torch.int64)


def check(x: Tensor, branches: int, ids: Tensor | None, sizes: Tensor | None, training: bool) -> None:
    """Checks the values of ids and sizes where they can be read without asking a device."""
    if torch.compiler.is_compiling():
        return
    if sizes is not None and sizes.shape[0] != branches:
        raise ValueError(f"branch: expected {branches} sizes, one a branch, or {x.shape[0]} ids, got {sizes.shape[0]}")
    if sizes is not None and sizes.device.type == "cpu":
        if int(sizes.sum()) != x.shape[0] or bool((sizes < 0).any()):
            raise ValueError(f"branch: sizes must be >= 0 and add up to N = {x.shape[0]}, got {sizes.tolist()}")
        counts = sizes
    elif ids is not None and ids.device.type == "cpu":
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < branches:
            raise ValueError(f"branch: ids must be in [0, {branches}), got {int(ids.min())} to {int(ids.max())}")
        counts = torch.bincount(ids, minlength=branches)
    elif ids is None and sizes is None:
        counts = torch.tensor([x.shape[0]])
    else:
        return
    values = counts * (x.numel() // max(1, x.shape[0] * x.shape[1]))
    if training and bool((values == 1).any()):
        raise ValueError(
            f"x: expected more than one value a channel in every branch when training, got {list(x.shape)} "
            f"with branch sizes {counts.tolist()}"
        )
