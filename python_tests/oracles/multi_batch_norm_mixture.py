"""The oracle of multi_batch_norm_mixture: the sum over branches, written down in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def multi_batch_norm_mixture_oracle(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    probs: Tensor,
    *,
    eps: float = 1e-5,
) -> Tensor:
    def along_channels(values: Tensor) -> Tensor:
        return values.double().reshape(1, -1, *[1] * (x.dim() - 2))

    y = torch.zeros_like(x, dtype=torch.float64)
    for b in range(probs.shape[1]):
        normal = (x.double() - along_channels(running_mean[b])) / torch.sqrt(along_channels(running_var[b]) + eps)
        if weight is not None:
            normal = normal * along_channels(weight[b])
        if bias is not None:
            normal = normal + along_channels(bias[b])
        y += probs[:, b].double().reshape(-1, *[1] * (x.dim() - 1)) * normal
    return y
