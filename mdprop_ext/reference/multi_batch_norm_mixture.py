"""multi_batch_norm_mixture in plain PyTorch: the affine maps of all branches mixed into one for each sample."""

from __future__ import annotations

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
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    mean, part = running_mean.to(dtype), probs.to(dtype)
    scale = torch.rsqrt(running_var.to(dtype) + eps)
    scale = scale if weight is None else scale * weight.to(dtype)

    def mixed(values: Tensor, by: Tensor) -> Tensor:  # [N or 1, B, C], [N, B] -> [N, C]
        # A branch of probability 0 takes no part, even where its statistics are not finite.
        return torch.where(part.unsqueeze(2) == 0, 0, values * by.unsqueeze(2)).sum(1)

    with torch.no_grad():  # the result does not depend on the centre; it keeps the digits of data far from zero
        share = part.abs()
        centre = mixed(mean.unsqueeze(0), share) / share.sum(1, keepdim=True).clamp(min=torch.finfo(dtype).tiny)
    shift = (centre.unsqueeze(1) - mean) * scale
    shift = shift if bias is None else shift + bias.to(dtype)
    shape = (*centre.shape, *[1] * (x.dim() - 2))
    slope = mixed(scale.unsqueeze(0), part).reshape(shape)
    return torch.addcmul(mixed(shift, part).reshape(shape), x.to(dtype) - centre.reshape(shape), slope).to(x.dtype)


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
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    weight = torch.ones_like(running_mean) if weight is None else weight
    bias = torch.zeros_like(running_mean) if bias is None else bias
    weight, bias, probs = (t.detach().to(dtype).requires_grad_() for t in (weight, bias, probs))
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        y = multi_batch_norm_mixture(x, weight, bias, running_mean, running_var, probs, eps=eps)
        wanted = [x, weight, bias, probs] if table_gradients else [x]
        gradients = list(torch.autograd.grad(y, wanted, grad.to(y.dtype)))
    gradients += [x.new_empty(0, dtype=dtype)] * (4 - len(gradients))
    grad_x, grad_weight, grad_bias, grad_probs = gradients
    return grad_x, grad_weight, grad_bias, grad_probs
