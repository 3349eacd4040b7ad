"""multi_batch_norm_mixture in plain PyTorch: the affine maps of all branches mixed into one for each sample."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def multi_batch_norm_mixture(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    probs: Tensor,
    *,
    eps: float = 1e-5,
) -> Tensor:
    """Batch norm by a mixture of branches; see ``mdprop_ext.ops.multi_batch_norm_mixture`` for the arguments."""
    maps = _maps(x, weight, bias, running_mean, running_var, probs, eps)
    return torch.addcmul(maps.shift, x.to(maps.slope.dtype) - maps.centre, maps.slope).to(x.dtype)


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    probs: Tensor,
    eps: float,
    table_gradients: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Kernel of the gradient: ``grad_x`` like x; gradients of weight and bias ``[B, C]`` and of probs ``[N, B]``.

    The tables have no elements unless ``table_gradients``.
    """
    maps = _maps(x, weight, bias, running_mean, running_var, probs, eps)
    g, centred = grad.to(maps.slope.dtype), x.to(maps.slope.dtype) - maps.centre
    grad_x = (g * maps.slope).to(x.dtype)
    if not table_gradients:
        return grad_x, g.new_empty(0), g.new_empty(0), g.new_empty(0)
    sums, products = (values.flatten(2).sum(2) if x.dim() > 2 else values for values in (g, g * centred))  # [N, C]
    # sum(g * (x - mean)) for each branch, [N, B, C].
    products = products.unsqueeze(1) + maps.distance * sums.unsqueeze(1)
    share = maps.part.unsqueeze(2)
    grad_weight = torch.where(share == 0, 0, share * products).sum(0) * maps.inverse
    grad_bias = torch.where(share == 0, 0, share * sums.unsqueeze(1)).sum(0)
    grad_probs = products * maps.scale
    if bias is not None:
        grad_probs = grad_probs + bias.to(g.dtype) * sums.unsqueeze(1)
    return grad_x, grad_weight, grad_bias, grad_probs.sum(2)


class _Maps(NamedTuple):
    """The affine maps of branches and samples in the compute dtype."""

    part: Tensor  # [N, B] the probabilities
    inverse: Tensor  # [B, C] 1 / deviation
    scale: Tensor  # [B, C]
    distance: Tensor  # [N, B, C] from the mean of a branch to the centre of a sample
    centre: Tensor  # [N, C, 1, ...], like the next two
    slope: Tensor
    shift: Tensor


def _maps(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    probs: Tensor,
    eps: float,
) -> _Maps:
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    mean, part = running_mean.to(dtype), probs.to(dtype)
    inverse = torch.rsqrt(running_var.to(dtype) + eps)
    scale = inverse if weight is None else inverse * weight.to(dtype)

    def mixed(values: Tensor, by: Tensor) -> Tensor:  # [N or 1, B, C], [N, B] -> [N, C]
        # A branch of probability 0 takes no part, even where its statistics are not finite.
        return torch.where(by.unsqueeze(2) == 0, 0, values * by.unsqueeze(2)).sum(1)

    with torch.no_grad():  # the result does not depend on the centre; it keeps the digits of data far from zero
        share = part.abs()
        centre = mixed(mean.unsqueeze(0), share) / share.sum(1, keepdim=True).clamp(min=torch.finfo(dtype).tiny)
    distance = centre.unsqueeze(1) - mean
    shift = distance * scale if bias is None else distance * scale + bias.to(dtype)
    shape = (*centre.shape, *[1] * (x.dim() - 2))
    slope = mixed(scale.unsqueeze(0), part).reshape(shape)
    return _Maps(part, inverse, scale, distance, centre.reshape(shape), slope, mixed(shift, part).reshape(shape))
