"""What an attack reports."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mdprop_ext.attacks.projections import compute_dtype


@dataclass(frozen=True, repr=False)
class AttackResult:
    """What an attack found, sample by sample.

    Args:
        x_adv: The attacked images ``[N, *]``, in dtype, device and memory format of the input.
        success: Whether the attack succeeded, as the objective defines it: bool ``[N]``.
        objective: The objective at ``x_adv``, measured on the returned images: ``[N]``.
        distance: Length of ``x_adv - x`` in the attack's norm, in pixel units: ``[N]``.
        steps_used: Gradient steps from the starting point to ``x_adv``: int64 ``[N]``.
    """

    x_adv: Tensor
    success: Tensor
    objective: Tensor
    distance: Tensor
    steps_used: Tensor

    @staticmethod
    def empty(x: Tensor) -> AttackResult:
        """The result of a batch ``x [0, *]`` without samples."""
        values = torch.empty(0, dtype=compute_dtype(x.dtype), device=x.device)
        steps = torch.empty(0, dtype=torch.int64, device=x.device)
        return AttackResult(x.detach().clone(), steps.bool(), values, values.clone(), steps)

    def __len__(self) -> int:
        """Returns the number of samples."""
        return len(self.x_adv)

    def __repr__(self) -> str:
        if not len(self):
            return "AttackResult(0 samples)"
        success, distance = float(self.success.double().mean()), float(self.distance.double().mean())
        return f"AttackResult({len(self)} samples, success {100 * success:.1f} %, mean distance {distance:.4g})"
