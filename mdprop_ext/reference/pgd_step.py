"""pgd_step in plain PyTorch."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def pgd_step(
    x: Tensor,
    grad: Tensor,
    origin: Tensor,
    *,
    norm: str,
    step: float | Tensor,
    radius: float | Tensor,
    lower: float | Tensor = 0.0,
    upper: float | Tensor = 1.0,
) -> Tensor:
    """One projected ascent step; see ``mdprop_ext.ops.pgd_step`` for the arguments.

    Every intermediate result is a tensor of the size of ``x``, computed in float32, or in float64 for float64 inputs.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    step = _per_sample(step, x, dtype)
    radius = _rounded_down(_per_sample(radius, x, torch.float64), dtype)
    lower = lower.to(dtype) if isinstance(lower, Tensor) else lower
    upper = upper.to(dtype) if isinstance(upper, Tensor) else upper
    x_wide, grad_wide, origin_wide = x.to(dtype), grad.to(dtype), origin.to(dtype)
    advance = _linf if norm == "linf" else _l2
    value, low, high = advance(x_wide, grad_wide, origin_wide, step, radius)
    value = _clamp(value, lower, upper)
    if x.dtype == dtype:
        return value
    # Rounding to a half type may leave the ball or the box: such values move to their neighbour inside.
    low, high = _clamp(low, lower, upper), _clamp(high, lower, upper)
    rounded = value.to(x.dtype)
    rounded = torch.where(rounded > high, _next(rounded, -math.inf), rounded)
    return torch.where(rounded < low, _next(rounded, math.inf), rounded)


def _linf(x: Tensor, grad: Tensor, origin: Tensor, step: Tensor, radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    high, low = origin + radius, origin - radius
    high = torch.where(high - origin > radius, torch.maximum(_slightly_below(high), origin), high)
    low = torch.where(origin - low > radius, torch.minimum(-_slightly_below(-low), origin), low)
    return torch.clamp(x + step * grad.sign(), low, high), low, high


def _l2(x: Tensor, grad: Tensor, origin: Tensor, step: Tensor, radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    norm = _norm(grad)
    scale = torch.where((norm > 0) & norm.isfinite(), step / norm, 0).to(x.dtype)
    moved = torch.where(scale == 0, x, x + scale * grad)
    delta = moved - origin
    norm = _norm(delta)
    slack = 1.0 - (2.0**-22 if x.dtype == torch.float32 else 2.0**-50)
    shrink = torch.where(norm > radius, radius / norm * slack, 1).to(x.dtype)
    delta = delta * shrink
    value = torch.where(shrink < 1, origin + delta, moved)
    limit = delta.abs()
    value = torch.where(value - origin > limit, torch.maximum(_slightly_below(value), origin), value)
    value = torch.where(origin - value > limit, torch.minimum(-_slightly_below(-value), origin), value)
    return value, torch.minimum(value, origin), torch.maximum(value, origin)


def _norm(x: Tensor) -> Tensor:
    """L2 norm of each sample in float64, shaped to broadcast over the samples."""
    dims = tuple(range(1, x.dim() + 1))
    norm: Tensor = torch.linalg.vector_norm(x.unsqueeze(-1), dim=dims, keepdim=True, dtype=torch.float64)
    return norm.squeeze(-1)


def _per_sample(value: float | Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(dtype).reshape(-1, *[1] * (x.dim() - 1))
    return torch.tensor(value, dtype=dtype, device=x.device)


def _rounded_down(value: Tensor, dtype: torch.dtype) -> Tensor:
    rounded = value.to(dtype)
    return torch.where(rounded.double() > value, _next(rounded, -math.inf), rounded)


def _slightly_below(value: Tensor) -> Tensor:
    """The value moved down by one or two units in its last place: enough where rounding took it outwards."""
    return value - value.abs() * (2.0**-23 if value.dtype == torch.float32 else 2.0**-52)


def _next(value: Tensor, towards: float) -> Tensor:
    """The neighbouring value of the same dtype; torch.nextafter lacks float16."""
    if value.dtype == torch.float16:
        neighbour = np.nextafter(value.cpu().numpy(), np.float16(towards))
        return torch.from_numpy(neighbour).to(value.device)
    return torch.nextafter(value, torch.full_like(value, towards))


def _clamp(value: Tensor, lower: float | Tensor, upper: float | Tensor) -> Tensor:
    if isinstance(lower, Tensor) or isinstance(upper, Tensor):
        low, high = (torch.as_tensor(bound, dtype=value.dtype, device=value.device) for bound in (lower, upper))
        return torch.clamp(value, low, high)
    return torch.clamp(value, lower, upper)
