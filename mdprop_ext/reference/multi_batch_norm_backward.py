"""The gradient of multi_batch_norm in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from mdprop_ext.reference.multi_batch_norm import has_rows, parts, row


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    mask: Tensor | None,
    sums: Tensor | None,
    branch_ids: Tensor | None,
    branch_sizes: Tensor | None,
    training: bool,
    eps: float,
    activation: str | None,
    affine_gradients: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Kernel of the gradient: ``grad_x``, ``grad_residual`` like x, ``grad_weight``, ``grad_bias`` ``[B, C]``.

    What is not wanted has no elements: the residual's without a mask, the tables' unless ``affine_gradients``.
    """
    branches = mean.shape[0]
    grad_x = torch.empty_like(x)
    grad_weight, grad_bias = (mean.new_zeros((branches, x.shape[1]) if affine_gradients else 0) for _ in range(2))
    inverse = torch.rsqrt(var + eps)
    grad = _cut(grad.to(x.dtype), x, weight, bias, mean, var, mask, branch_ids, branch_sizes, eps, activation)
    for b, part, index in parts(x, branches, branch_ids, branch_sizes):
        wanted = [True, affine_gradients, affine_gradients]
        ones = torch.ones_like(mean[b]) if weight is None else weight[b].to(mean.dtype)
        if sums is None:
            result = torch.ops.aten.native_batch_norm_backward(
                grad[index], part, ones, mean[b], var[b], mean[b], inverse[b], training, eps, wanted
            )
        else:
            result = _gradient_from_sums(grad[index], part, ones, mean[b], inverse[b], sums[b], training)
        grad_x[index] = result[0].to(x.dtype)
        if affine_gradients:
            grad_weight[b], grad_bias[b] = result[1], result[2]
    return grad_x, x.new_empty(0) if mask is None else grad, grad_weight, grad_bias


def backward_sums(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    mask: Tensor | None,
    branch_ids: Tensor | None,
    branch_sizes: Tensor | None,
    eps: float,
    activation: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The first half of ``backward``: sums ``[B, 2C + 1]`` over this batch, and gradients of weight and bias."""
    branches, channels = mean.shape
    sums = mean.new_zeros((branches, 2 * channels + 1), dtype=torch.float64)
    grad = _cut(grad.to(x.dtype), x, weight, bias, mean, var, mask, branch_ids, branch_sizes, eps, activation)
    for b, part, index in parts(x, branches, branch_ids, branch_sizes):
        wide, g = (t.double().transpose(0, 1).flatten(1) for t in (part, grad[index]))
        sums[b, 0] = wide.shape[1]
        sums[b, 1:] = torch.cat([g.sum(1), (g * (wide - mean[b].double().unsqueeze(1))).sum(1)])
    grad_sum, product_sum = sums[:, 1:].chunk(2, 1)
    return sums, (product_sum * torch.rsqrt(var + eps)).to(mean.dtype), grad_sum.to(mean.dtype, copy=True)


def differentiable_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    mask: Tensor | None,
    ids: Tensor,
    training: bool,
    eps: float,
    activation: str | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The formula of ``backward`` in differentiable operations, for second derivatives.

    In training ``mean`` and ``var`` are computed from ``x`` again, since they depend on it.
    """
    branches, dtype = mean.shape[0], mean.dtype
    g, wide = (t.to(dtype).flatten(2) if x.dim() > 2 else t.to(dtype).unsqueeze(2) for t in (grad, x))
    # Counted without bincount, which waits for the device to learn the size of its result.
    samples = ids.new_zeros(branches).index_add(0, ids, torch.ones_like(ids))
    count = samples.clamp(min=1).unsqueeze(1) * wide.shape[2]  # [B, 1]

    def total(values: Tensor) -> Tensor:  # [N, C, S] -> [B, C]
        return torch.zeros_like(mean).index_add(0, ids, values.sum(2))

    def spread(table: Tensor) -> Tensor:  # [B, C] -> [N, C, 1]
        return table[ids].unsqueeze(2)

    if training:
        mean = total(wide) / count
        var = total((wide - spread(mean)) ** 2) / count
    centred, inverse = wide - spread(mean), torch.rsqrt(var + eps)
    scale = inverse if weight is None else weight * inverse
    if mask is not None:
        g = g * _unpack(mask, x).reshape(g.shape)
    elif activation == "relu":
        shift = 0.0 if bias is None else spread(bias)
        g = g * (centred * spread(scale) + shift > 0)
    grad_residual = g.reshape(x.shape).to(x.dtype)
    grad_sum, product_sum = total(g), total(g * centred)
    grad_x = g
    if training:
        grad_x = g - spread(grad_sum / count) - centred * spread(product_sum / count * inverse**2)
    grad_x = (grad_x * spread(scale)).reshape(x.shape).to(x.dtype)
    return grad_x, grad_residual, product_sum * inverse, grad_sum


def _cut(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    mask: Tensor | None,
    ids: Tensor | None,
    sizes: Tensor | None,
    eps: float,
    activation: str | None,
) -> Tensor:
    """The gradient that reaches the normalisation: zero where relu cut a value off."""
    if mask is not None:
        return grad * _unpack(mask, x)
    if activation != "relu":
        return grad
    grad = grad.clone()
    for b, part, index in parts(x, mean.shape[0], ids, sizes):
        y = torch.native_batch_norm(part, row(weight, b), row(bias, b), mean[b], var[b], False, 0.0, eps)[0]
        grad[index] *= y > 0
    return grad


def _gradient_from_sums(
    grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor, sums: Tensor, training: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of one branch from its row of sums ``[2C + 1]``."""
    grad_sum, product_sum = sums[1:].chunk(2)

    def along_channels(values: Tensor) -> Tensor:
        return values.to(mean.dtype).reshape(1, -1, *[1] * (x.dim() - 2))

    grad_x = grad.to(mean.dtype)
    if training:
        slope = product_sum / sums[0] * inverse.double() ** 2
        centred = x.to(mean.dtype) - along_channels(mean)
        grad_x = grad_x - along_channels(grad_sum / sums[0]) - centred * along_channels(slope)
    return grad_x * along_channels(weight * inverse), product_sum * inverse, grad_sum


def _unpack(mask: Tensor, x: Tensor) -> Tensor:
    """The bits of a mask as bool ``[N, C, *]``."""
    rows = has_rows(x)
    shape = (*x.shape[:1], *x.shape[2:], x.shape[1]) if rows else x.shape
    width = shape[-1] if rows else x.shape[2:].numel()
    bits = (mask.unsqueeze(1) >> torch.arange(8, device=mask.device, dtype=torch.uint8)) & 1
    values = bits.reshape(-1, (width + 7) // 8 * 8)[:, :width].reshape(shape).bool()
    return values.movedim(-1, 1) if rows else values
