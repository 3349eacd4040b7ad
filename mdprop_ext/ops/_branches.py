"""The arguments that say which branch each sample of a batch belongs to, and the tables of all branches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.module_tracker import ModuleTracker

from mdprop_ext.ops import _check

_TRACKER = ModuleTracker()  # never entered: it is where torch says in public whether a backward pass is running


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
    if not all(isinstance(size, int) and not isinstance(size, bool) for size in sizes):
        raise TypeError(f"branch: expected a sequence of ints, the sizes of the branches, got {branch!r}")
    return None, torch.tensor(sizes, dtype=torch.int64)


def check(x: Tensor, branches: int, ids: Tensor | None, sizes: Tensor | None, training: bool) -> None:
    """Checks the values of ids and sizes where they can be read without asking a device."""
    if torch.compiler.is_compiling():
        return
    samples = x.shape[0]
    if sizes is not None and sizes.shape[0] != branches:
        raise ValueError(
            f"branch: expected {branches} sizes, one a branch, or {samples} ids in an int64 tensor, "
            f"got {sizes.shape[0]} sizes"
        )
    known = next((t for t in (ids, sizes) if t is not None), None)
    if known is not None and known.device.type != "cpu":
        return
    values = [samples] if known is None else known.tolist()
    if sizes is not None and (sum(values) != samples or min(values) < 0):
        raise ValueError(f"branch: sizes must be >= 0 and add up to N = {samples}, got {values}")
    if ids is not None and values and not (min(values) >= 0 and max(values) < branches):
        raise ValueError(f"branch: ids must be in [0, {branches}), got {min(values)} to {max(values)}")
    if training and x.numel() == samples * x.shape[1]:
        counts = values if ids is None else torch.bincount(ids, minlength=branches).tolist()
        if 1 in counts:
            raise ValueError(
                f"x: expected more than one value a channel in every branch when training, got {list(x.shape)} "
                f"with branch sizes {counts}"
            )


def count(tables: Mapping[str, Tensor | None], sizes: Tensor | None) -> int:
    """The number of branches B >= 1 that the first table given, or else the sizes, have a row for."""
    for name, table in tables.items():
        if table is not None:
            _check.floating(name, table)
            if table.dim() == 0 or table.shape[0] == 0:
                raise ValueError(f"{name}: expected [B, C] with B >= 1, got {list(table.shape)}")
            return table.shape[0]
    if sizes is not None and sizes.shape[0] == 0:
        raise ValueError("branch: expected the size of one branch at least, got none")
    return 1 if sizes is None else sizes.shape[0]


def check_tables(x: Tensor, branches: int, tables: Mapping[str, Tensor | None]) -> None:
    """Checks that x is ``[N, C, *]``, every table given ``[B, C]`` and floating, and the running ones of one dtype."""
    _check.floating("x", x)
    if x.dim() < 2:
        raise ValueError(f"x: expected [N, C, *], got {list(x.shape)}")
    for name, table in tables.items():
        if table is None:
            continue
        _check.floating(name, table)
        if tuple(table.shape) != (branches, x.shape[1]):
            raise ValueError(
                f"{name}: expected [B, C] with B = {branches} and C = {x.shape[1]} of x, got {list(table.shape)}"
            )
        _check.same_device(name, table, "x", x)
    mean, var = tables["running_mean"], tables["running_var"]
    if mean is not None and var is not None and mean.dtype != var.dtype:
        raise TypeError(f"running_var: expected the dtype of running_mean, {mean.dtype}, got {var.dtype}")


def check_recomputed(branches: Tensor | None, recomputed: Tensor | None) -> None:
    """Refuses gradients of a checkpointed block whose recomputation took other branches than its forward pass."""
    # Tensors of a trace have a type of their own and no values to compare.
    if branches is None or type(recomputed) is not Tensor or torch.compiler.is_compiling():
        return
    # Comparing values may wait for a device, but outside checkpointing it is the same memory.
    if recomputed.data_ptr() != branches.data_ptr() and not torch.equal(recomputed.to(branches.device), branches):
        raise RuntimeError(
            "a checkpointed block was recomputed under another route than in its forward pass: "
            "call backward inside the same use_branch or use_branches context"
        )


def recomputing() -> bool:
    """Whether a backward pass runs this forward pass again, as for a checkpointed block, whose first run has counted.

    Always False in a trace: compiled graphs repeat what has no side effects only.
    """
    return not torch.compiler.is_compiling() and _TRACKER.is_bw
