"""One look at a point: objective, its gradient, and success."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mdprop_ext.attacks.aim import Aim
from mdprop_ext.attacks.projections import compute_dtype, per_sample
from mdprop_ext.attacks.rows import map_tensors

_HALF_TYPES = (torch.float16, torch.bfloat16)
_GREATEST_EXPONENT = 8  # of a sample's gradient at a half-precision output: float16 reaches from 2^-24 to 2^15


@dataclass(frozen=True)
class Look:
    """What was seen at a point.

    Args:
        values: The objective ``[N]``.
        gradient: Its gradient ``[N, *]``, each sample's up to a positive factor; None where none was asked for.
        success: Bool ``[N]``; None where it was not asked for.
    """

    values: Tensor
    gradient: Tensor | None
    success: Tensor | None


def look(aim: Aim, point: Tensor, *, with_success: bool) -> Look:
    """Evaluates ``point [N, *]`` without gradient."""
    with torch.no_grad():
        output = aim.output(point)
        values = aim.values(output)
    return Look(values, None, aim.success(output, values) if with_success else None)


def look_up(aim: Aim, point: Tensor, *, with_success: bool, samples_apart: bool) -> Look:
    """Evaluates ``point [N, *]`` with the gradient of the objective's sum.

    The gradient of a confident prediction is far below what float16 can hold. So where the model's output holds
    half-precision tensors the objective gets them in fp32, and on its way back to them each sample's gradient is scaled
    by a power of two, which no direction of a step sees.

    Args:
        aim: The batch.
        point: Where to look.
        with_success: Whether to ask for success.
        samples_apart: Whether a sample's output depends on its own point alone, so that it may be scaled by itself.

    Raises:
        ValueError: If the objective does not depend on the point.
    """
    variable = point.detach().requires_grad_()
    output = aim.output(variable)
    cuts: list[tuple[Tensor, Tensor]] = []  # tensors of the output, and the copies that the objective gets

    def cut(tensor: Tensor) -> Tensor:
        if not tensor.requires_grad:
            return tensor
        wide = tensor.detach().to(compute_dtype(tensor.dtype)).requires_grad_()
        cuts.append((tensor, wide))
        return wide

    if samples_apart and _has_half_rows(output, len(point)):
        output = map_tensors(cut, output)
    values = aim.values(output)
    gradient = None
    if values.requires_grad:
        gradient = _through_half_types(values, cuts, variable) if cuts else _gradient(values.sum(), variable)
    if gradient is None:
        raise ValueError("objective: expected values that depend on the input differentiably; was the output detached?")
    values = values.detach()
    return Look(values, gradient, aim.success(output, values) if with_success else None)


def _has_half_rows(output: object, count: int) -> bool:
    """Whether the differentiable tensors of an output have one row a sample, and one of them a half type."""
    tensors: list[Tensor] = []
    map_tensors(tensors.append, output)
    tensors = [tensor for tensor in tensors if tensor.requires_grad]
    in_rows = all(tensor.dim() > 0 and len(tensor) == count for tensor in tensors)
    return in_rows and any(tensor.dtype in _HALF_TYPES for tensor in tensors)


def _gradient(value: Tensor | list[Tensor], variable: Tensor, weights: list[Tensor] | None = None) -> Tensor | None:
    """The gradient at ``variable``, None where the value does not depend on it."""
    return torch.autograd.grad(value, variable, weights, allow_unused=True)[0]


def _through_half_types(values: Tensor, cuts: list[tuple[Tensor, Tensor]], variable: Tensor) -> Tensor | None:
    gradients = torch.autograd.grad(values.sum(), [wide for _, wide in cuts], allow_unused=True)
    used = [(tensor, gradient) for (tensor, _), gradient in zip(cuts, gradients, strict=True) if gradient is not None]
    if not used:
        return None
    greatest = torch.stack([gradient.reshape(len(variable), -1).abs().amax(1) for _, gradient in used]).amax(0)
    exponent = (_GREATEST_EXPONENT - torch.frexp(greatest).exponent).clamp(-100, 100)
    scale = torch.where(greatest > 0, torch.ldexp(torch.ones_like(greatest), exponent), 1.0)
    scaled = [(gradient * per_sample(scale, gradient)).to(tensor.dtype) for tensor, gradient in used]
    return _gradient([tensor for tensor, _ in used], variable, scaled)
