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
) -> Tensor:
    lower = torch.as_tensor(lower, dtype=torch.float64).expand(x.shape)
    upper = torch.as_tensor(upper, dtype=torch.float64).expand(x.shape)
    result = torch.empty(x.shape, dtype=torch.float64)
    for n in range(x.shape[0]):
        length = float(step[n] if isinstance(step, Tensor) else step)
        reach = float(radius[n] if isinstance(radius, Tensor) else radius)
        g, start, centre = grad[n].double(), x[n].double(), origin[n].double()
        if norm == "linf":
            delta = (start + length * torch.sign(g) - centre).clamp(-reach, reach)
        else:
            size = g.norm()
            delta = start + (length * g / size if size > 0 else 0 * g) - centre
            if delta.norm() > reach:
                delta = delta * (reach / delta.norm())
        result[n] = torch.minimum(torch.maximum(centre + delta, lower[n]), upper[n])
    return result
