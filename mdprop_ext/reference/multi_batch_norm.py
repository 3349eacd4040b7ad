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
) -> Tensor:
    """Batch norm with B branches; see ``mdprop_ext.ops.multi_batch_norm`` for the arguments."""

    def norm(part: Tensor, b: int) -> Tensor:
        if part.numel() == 0:
            return part
        statistics = _row(running_mean, b), _row(running_var, b)
        y = F.batch_norm(part, *statistics, _row(weight, b), _row(bias, b), training, momentum or 0.0, eps)
        return F.relu_(y) if activation == "relu" else y

    if branch is None:
        return norm(x, 0)
    is_ids = isinstance(branch, Tensor) and branch.shape[0] == x.shape[0]
    branches = next((t.shape[0] for t in (weight, running_mean) if t is not None), 0)
    if is_ids:
        ids: Tensor = branch  # type: ignore[assignment]
        branches = branches or int(ids.max()) + 1
        if bool((ids[1:] < ids[:-1]).any()):
            order = torch.argsort(ids, stable=True)
            parts = torch.split(x[order], torch.bincount(ids, minlength=branches).tolist())
            return torch.cat([norm(part, b) for b, part in enumerate(parts)])[torch.argsort(order)]
        branch = torch.bincount(ids, minlength=branches)
    sizes = branch.tolist() if isinstance(branch, Tensor) else list(branch)
    return torch.cat([norm(part, b) for b, part in enumerate(torch.split(x, sizes))])


def forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    branch_ids: Tensor | None,
    branch_sizes: Tensor | None,
    training: bool,
    eps: float,
    activation: str | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Kernel of the op: ``y`` like x, ``mean`` and biased ``var`` ``[B, C]`` as used, ``count`` ``[B]``."""
    tables = [t for t in (weight, running_mean, branch_sizes) if t is not None]
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
    for b, part, index in _parts(x, branches, branch_ids, branch_sizes):
        values = part.shape[0] * part[0, 0].numel()
        count[b] = values
        y_b, _, _ = torch.native_batch_norm(part, _row(weight, b), _row(bias, b), mean[b], var[b], training, 1.0, eps)
        if training:
            var[b] *= (values - 1) / values if values > 1 else 0.0
            var[b].nan_to_num_(0.0) if values == 1 else None
        y_b = F.relu_(y_b) if activation == "relu" else y_b
        y[index] = y_b
    return y, mean, var, count


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    branch_ids: Tensor | None,
    branch_sizes: Tensor | None,
    training: bool,
    eps: float,
    activation: str | None,
    affine_gradients: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Kernel of the gradient: ``grad_x`` like x; ``grad_weight``, ``grad_bias`` ``[B, C]``, or ``[0]`` if unwanted."""
    branches = mean.shape[0]
    grad_x = torch.empty_like(x)
    grad_weight, grad_bias = (mean.new_zeros((branches, x.shape[1]) if affine_gradients else 0) for _ in range(2))
    inverse = torch.rsqrt(var + eps)
    for b, part, index in _parts(x, branches, branch_ids, branch_sizes):
        grad_b = grad[index].to(x.dtype)
        if activation == "relu":
            y = torch.native_batch_norm(part, _row(weight, b), _row(bias, b), mean[b], var[b], False, 0.0, eps)[0]
            grad_b = grad_b * (y > 0)
        mask = [True, affine_gradients, affine_gradients]
        ones = torch.ones_like(mean[b]) if weight is None else weight[b].to(mean.dtype)
        result = torch.ops.aten.native_batch_norm_backward(
            grad_b, part, ones, mean[b], var[b], mean[b], inverse[b], training, eps, mask
        )
        grad_x[index] = result[0]
        if affine_gradients:
            grad_weight[b], grad_bias[b] = result[1], result[2]
    return grad_x, grad_weight, grad_bias


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
        share = present * torch.ones((), device=mean.device) * (momentum or 0.0)
        if num_batches:
            num_batches[b] += present
            if momentum is None:
                share = present / num_batches[b].clamp(min=1)
        unbiased = count[b] / (count[b] - 1).clamp(min=1)
        running_mean.lerp_(mean[b].to(running_mean.dtype), share.to(running_mean.dtype))
        running_var.lerp_((var[b] * unbiased).to(running_var.dtype), share.to(running_var.dtype))


def differentiable_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    ids: Tensor,
    training: bool,
    eps: float,
    activation: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The formula of ``backward`` in differentiable operations, for second derivatives.

    In training ``mean`` and ``var`` are computed from ``x`` again, since they depend on it.
    """
    branches, dtype = mean.shape[0], mean.dtype
    g, wide = grad.to(dtype).flatten(2), x.to(dtype).flatten(2)
    if x.dim() == 2:
        g, wide = g.unsqueeze(2), wide.unsqueeze(2)
    count = torch.bincount(ids, minlength=branches).clamp(min=1).unsqueeze(1) * wide.shape[2]  # [B, 1]

    def total(values: Tensor) -> Tensor:  # [N, C, S] -> [B, C]
        return torch.zeros_like(mean).index_add(0, ids, values.sum(2))

    def spread(table: Tensor) -> Tensor:  # [B, C] -> [N, C, 1]
        return table[ids].unsqueeze(2)

    if training:
        mean = total(wide) / count
        var = total((wide - spread(mean)) ** 2) / count
    centred, inverse = wide - spread(mean), torch.rsqrt(var + eps)
    scale = inverse if weight is None else weight * inverse
    if activation == "relu":
        shift = 0.0 if bias is None else spread(bias)
        g = g * (centred * spread(scale) + shift > 0)
    grad_sum, product_sum = total(g), total(g * centred)
    grad_x = g
    if training:
        grad_x = g - spread(grad_sum / count) - centred * spread(product_sum / count * inverse**2)
    grad_x = (grad_x * spread(scale)).reshape(x.shape).to(x.dtype)
    return grad_x, product_sum * inverse, grad_sum


def _row(table: Tensor | None, b: int) -> Tensor | None:
    return None if table is None else table[b]


def _parts(
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
