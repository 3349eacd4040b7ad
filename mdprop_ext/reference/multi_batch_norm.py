"""multi_batch_norm in plain PyTorch: split the batch, one batch norm a branch, concatenate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor


def multi_batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    *,
    branch: Tensor | Sequence[int] | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Batch norm with B branches; see ``mdprop_ext.ops.multi_batch_norm`` for the arguments."""

    def norm(part: Tensor, added: Tensor | None, b: int) -> Tensor:
        if part.numel() == 0:
            return part
        statistics = row(running_mean, b), row(running_var, b)
        y = F.batch_norm(
            _for_sum(part, added), *statistics, row(weight, b), row(bias, b), training, momentum or 0.0, eps
        )
        return _finish(y, added, activation).to(x.dtype)

    if branch is None:
        return norm(x, residual, 0)
    is_ids = isinstance(branch, Tensor) and branch.shape[0] == x.shape[0]
    branches = next((t.shape[0] for t in (weight, bias, running_mean) if t is not None), 0)
    if is_ids:
        ids: Tensor = branch  # type: ignore[assignment]
        branches = branches or int(ids.max()) + 1
        if bool((ids[1:] < ids[:-1]).any()):
            order = torch.argsort(ids, stable=True)
            added = None if residual is None else residual[order]
            in_order = _split(x[order], added, torch.bincount(ids, minlength=branches))
            return torch.cat([norm(*part, b) for b, part in enumerate(in_order)])[torch.argsort(order)]
        branch = torch.bincount(ids, minlength=branches)
    return torch.cat([norm(*part, b) for b, part in enumerate(_split(x, residual, branch))])


def forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    residual: Tensor | None,
    branch_ids: Tensor | None,
    branch_sizes: Tensor | None,
    training: bool,
    eps: float,
    activation: str | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Kernel of the op: ``y`` like x, ``mean`` and biased ``var`` ``[B, C]`` as used, ``count`` ``[B]``, ``mask``."""
    tables = [t for t in (weight, bias, running_mean, branch_sizes) if t is not None]
    branches, channels = tables[0].shape[0] if tables else 1, x.shape[1]
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    y = torch.empty_like(x)
    count = x.new_zeros(branches, dtype=torch.int64)
    if training:
        mean, var = (x.new_zeros((branches, channels), dtype=dtype) for _ in range(2))  # outputs share no memory
    else:
        assert running_mean is not None
        assert running_var is not None
        mean, var = running_mean.to(dtype, copy=True), running_var.to(dtype, copy=True)
    for b, part, index in parts(x, branches, branch_ids, branch_sizes):
        values = part.shape[0] * part[0, 0].numel()
        count[b] = values
        added = None if residual is None else residual[index]
        y_b, _, _ = torch.native_batch_norm(
            _for_sum(part, added), row(weight, b), row(bias, b), mean[b], var[b], training, 1.0, eps
        )
        if training:
            var[b] *= (values - 1) / values if values > 1 else 0.0
            var[b].nan_to_num_(0.0) if values == 1 else None
        y[index] = _finish(y_b, added, activation).to(x.dtype)
    has_mask = residual is not None and activation is not None
    return y, mean, var, count, _pack(y > 0, has_rows(x)) if has_mask else x.new_empty(0, dtype=torch.uint8)


def statistics(x: Tensor, branches: int, branch_ids: Tensor | None, branch_sizes: Tensor | None) -> Tensor:
    """The first half of ``forward`` in training: moments ``[B, 2C + 1]``, float64."""
    moments = x.new_zeros((branches, 2 * x.shape[1] + 1), dtype=torch.float64)
    for b, part, _ in parts(x, branches, branch_ids, branch_sizes):
        wide = part.double().transpose(0, 1).flatten(1)
        var, mean = torch.var_mean(wide, 1, correction=0)
        moments[b] = torch.cat([var.new_tensor([wide.shape[1]]), mean, var * wide.shape[1]])
    return moments


def merge(moments: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Joins the moments ``[R, B, 2C + 1]`` of R parts: mean and biased var ``[B, C]``, count ``[B]``."""
    channels = moments.shape[2] // 2
    count, mean, m2 = (torch.zeros_like(moments[0, :, :width]) for width in (1, channels, channels))
    for part_count, part_mean, part_m2 in (part.split([1, channels, channels], 1) for part in moments):
        total = (count + part_count).clamp(min=1)
        delta = part_mean - mean
        mean = mean + delta * (part_count / total)
        m2 = m2 + part_m2 + delta**2 * (count * part_count / total)
        count = count + part_count
    return mean.to(dtype), (m2 / count.clamp(min=1)).to(dtype), count[:, 0].to(torch.int64)


def update(
    running_means: list[Tensor],
    running_vars: list[Tensor],
    num_batches: list[Tensor],
    mean: Tensor,
    var: Tensor,
    count: Tensor,
    momentum: float | None,
) -> None:
    """Moves running statistics towards those of a batch, in place; branches without values stay as they are."""
    for b, (running_mean, running_var) in enumerate(zip(running_means, running_vars, strict=True)):
        present = count[b] > 0
        share = present.to(mean.dtype) * (momentum or 0.0)  # quotients of integers would be float32
        if num_batches:
            num_batches[b] += present
            if momentum is None:
                share = present / num_batches[b].clamp(min=1).to(mean.dtype)
        unbiased = count[b] / (count[b] - 1).clamp(min=1).to(mean.dtype)
        running_mean.lerp_(mean[b].to(running_mean.dtype), share.to(running_mean.dtype))
        running_var.lerp_((var[b] * unbiased).to(running_var.dtype), share.to(running_var.dtype))


def row(table: Tensor | None, b: int) -> Tensor | None:
    """The row of one branch, if there is a table."""
    return None if table is None else table[b]


def _for_sum(part: Tensor, residual: Tensor | None) -> Tensor:
    """The input of a norm whose result is added to a residual: no half type, which would round before the sum."""
    return part if residual is None or part.dtype == torch.float64 else part.float()


def _finish(y: Tensor, residual: Tensor | None, activation: str | None) -> Tensor:
    y = y if residual is None else y.add_(residual)
    return F.relu_(y) if activation == "relu" else y


def has_rows(x: Tensor) -> bool:
    """Whether masks of x lie along its channels, as the values of a channels_last tensor do."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    is_channels_last = last is not None and x.is_contiguous(memory_format=last) and not x.is_contiguous()
    return is_channels_last or x.shape[2:].numel() == 1


def _pack(positive: Tensor, rows: bool) -> Tensor:
    """One bit a value ``[N, C, *]``, in lines of whole bytes; the layout is that of the compiled kernels."""
    lines = positive.movedim(1, -1).flatten(0, -2) if rows else positive.flatten(0, 1).flatten(1)
    lines = F.pad(lines.to(torch.uint8), (0, -lines.shape[1] % 8))
    return (lines.reshape(-1, 8) << torch.arange(8, device=lines.device)).sum(1).to(torch.uint8)


def _split(x: Tensor, residual: Tensor | None, sizes: Tensor | Sequence[int]) -> list[tuple[Tensor, Tensor | None]]:
    lengths = sizes.tolist() if isinstance(sizes, Tensor) else list(sizes)
    parts = torch.split(x, lengths)
    return list(zip(parts, [None] * len(parts) if residual is None else torch.split(residual, lengths), strict=True))


def parts(
    x: Tensor, branches: int, ids: Tensor | None, sizes: Tensor | None
) -> Iterator[tuple[int, Tensor, slice | Tensor]]:
    """The non-empty branches of a batch: number, samples, and where they are in the batch."""
    if x.numel() == 0:
        return
    if ids is None:
        bounds = [0, x.shape[0]] if sizes is None else [0, *sizes.cumsum(0).tolist()]
    elif bool((ids[1:] >= ids[:-1]).all()):
        bounds = [0, *torch.bincount(ids, minlength=branches).cumsum(0).tolist()]
    else:
        for b in range(branches):
            index = (ids == b).nonzero().squeeze(1)
            if index.numel():
                yield b, x[index], index
        return
    for b, (begin, end) in enumerate(pairwise(bounds)):
        if end > begin:
            yield b, x[begin:end], slice(begin, end)
