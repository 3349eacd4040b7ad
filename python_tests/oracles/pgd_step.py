"""The oracle of pgd_step: one sample at a time in float64, without rounding rules."""

from __future__ import annotations

import torch
from torch import Tensor


def pgd_step_oracle(
    x: Tensor,
    grad: Tensor,
    origin: Tensor,
    *,
    norm: str,
    step: float | Tensor,
    radius: float | Tensor,
    lower: float | Tensor = 0.0,
    upper: float | Tensor = 1.0,
    active: Tensor | None = None,
    mask: Tensor | None = None,
    velocity: Tensor | None = None,
    decay: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    lower = torch.as_tensor(lower, dtype=torch.float64).expand(x.shape)
    upper = torch.as_tensor(upper, dtype=torch.float64).expand(x.shape)
    shown = torch.ones(x.shape, dtype=torch.bool) if mask is None else (mask != 0).expand(x.shape)
    result = x.double()
    for n in range(x.shape[0]):
        if active is not None and not active[n]:
            continue
        length = float(step[n] if isinstance(step, Tensor) else step)
        reach = float(radius[n] if isinstance(radius, Tensor) else radius)
        chosen = shown[n]
        g, start = grad[n][chosen].double(), x[n][chosen].double()
        centre = origin[n][chosen].double() / (255 if origin.dtype == torch.uint8 else 1)
        if velocity is not None:
            mean = g.abs().mean() if len(g) else 0
            momentum = decay * velocity[n][chosen].double() + (g / mean if mean > 0 else 0)
            g = momentum.to(x.dtype).double()
        result[n][chosen] = moved(norm, start, g, centre, length, reach, lower[n][chosen], upper[n][chosen])
    return result


def moved(
    norm: str, x: Tensor, grad: Tensor, origin: Tensor, step: float, radius: float, lower: Tensor, upper: Tensor
) -> Tensor:
    """One sample: all tensors [M] in float64."""
    if norm == "l1":
        return project_l1(x + step * torch.sign(grad), origin, radius, lower, upper)
    if norm == "linf":
        delta = (x + step * torch.sign(grad) - origin).clamp(-radius, radius)
    else:
        size = grad.norm()
        delta = x + (step * grad / size if size > 0 else 0 * grad) - origin
        if delta.norm() > radius:
            delta = delta * (radius / delta.norm())
    return torch.minimum(torch.maximum(origin + delta, lower), upper)


def project_l1(point: Tensor, origin: Tensor, radius: float, lower: Tensor, upper: Tensor) -> Tensor:
    """The nearest point of ball and box, by bisection on the multiplier of the ball: each value then minimises
    (y - point)^2 / 2 + multiplier * |y - origin| over its interval, which the soft threshold, clamped, does."""

    def at(multiplier: float) -> Tensor:
        delta = point - origin
        soft = torch.sign(delta) * (delta.abs() - multiplier).clamp(min=0)
        return torch.minimum(torch.maximum(origin + soft, lower), upper)

    if (at(0.0) - origin).abs().sum() <= radius:
        return at(0.0)
    low, high = 0.0, float((point - origin).abs().max())
    while low < (middle := (low + high) / 2) < high:
        if (at(middle) - origin).abs().sum() > radius:
            low = middle
        else:
            high = middle
    return at(high)
