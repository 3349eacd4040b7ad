"""Norms: the length of a perturbation, a random start in the ball, and the projected ascent step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from mdprop_ext import ops

NormName = Literal["linf", "l2", "l1"]
Scalars = float | Tensor  # one number, or one number a sample: [N]
Bound = float | Tensor  # one number, or a tensor that broadcasts to the images


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Reshapes ``values [N]`` to ``[N, 1, ...]``, which broadcasts against ``like [N, *]``."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which perturbations are measured and drawn: fp64 for fp64, fp32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class Norm(ABC):
    """The ball ``|x - origin| <= radius`` of one norm, over all dimensions of a sample."""

    name: NormName

    @abstractmethod
    def length(self, perturbation: Tensor) -> Tensor:
        """Length of each sample of ``perturbation [N, *]``, as ``[N]``."""

    def distance(self, x: Tensor, origin: Tensor) -> Tensor:
        """Length of ``x - origin`` for each sample, as ``[N]``, in fp32 at least."""
        dtype = compute_dtype(x.dtype)
        return self.length(x.to(dtype) - origin.to(dtype))

    def random_start(
        self, origin: Tensor, radius: Scalars, *, lower: Bound, upper: Bound, seed: int, offset: int
    ) -> Tensor:
        """Draws a point uniformly in the ball and clamps it to the box; see :func:`mdprop_ext.ops.random_start`.

        The noise of a sample depends on ``seed``, ``offset`` and its position in the batch, not on the batch's size.
        """
        return ops.random_start(
            origin, norm=self.name, radius=radius, lower=lower, upper=upper, seed=seed, offset=offset
        )

    def step(
        self,
        x: Tensor,
        grad: Tensor,
        origin: Tensor,
        *,
        step: Scalars,
        radius: Scalars,
        lower: Bound,
        upper: Bound,
        mask: Tensor | None = None,
        velocity: Tensor | None = None,
        decay: float = 1.0,
    ) -> Tensor:
        """Steps up ``grad``: ``project(x + step * direction(grad))``; see :func:`mdprop_ext.ops.pgd_step`."""
        return ops.pgd_step(
            x,
            grad,
            origin,
            norm=self.name,
            step=step,
            radius=radius,
            lower=lower,
            upper=upper,
            mask=mask,
            velocity=velocity,
            decay=decay,
        )


class Linf(Norm):
    """Greatest absolute change of a pixel; a step moves every pixel by the sign of its gradient."""

    name = "linf"

    def length(self, perturbation: Tensor) -> Tensor:
        """Greatest absolute value of each sample, ``[N]``."""
        return perturbation.flatten(1).abs().amax(dim=1)


class L2(Norm):
    """Euclidean length of the change; a step moves along the gradient scaled to unit length."""

    name = "l2"

    def length(self, perturbation: Tensor) -> Tensor:
        """Euclidean length of each sample, ``[N]``."""
        length: Tensor = torch.linalg.vector_norm(perturbation.flatten(1), dim=1)
        return length


class L1(Norm):
    r"""Sum of absolute changes; a step moves the few pixels with the greatest gradients.

    The sign of the whole gradient would spread the radius evenly over all pixels. The best use of it is the opposite:
    on a linear model the single pixel of the greatest weight. So a step divides its length among the hundredth part of
    the pixels, at least one, whose gradients are greatest, and goes on to the next ones where the box leaves less room.

    Reference:
        Tramèr, Boneh: Adversarial Training and Robustness for Multiple Perturbations, NeurIPS 2019, arXiv:1904.13000.
    """

    name = "l1"
    _SHARE = 0.01  # of the pixels that a step moves
    _PARTS = 2**20  # in which the room of a pixel is counted

    def length(self, perturbation: Tensor) -> Tensor:
        """Sum of the absolute values of each sample, ``[N]``."""
        return perturbation.flatten(1).abs().sum(dim=1)

    def step(
        self,
        x: Tensor,
        grad: Tensor,
        origin: Tensor,
        *,
        step: Scalars,
        radius: Scalars,
        lower: Bound,
        upper: Bound,
        mask: Tensor | None = None,
        velocity: Tensor | None = None,
        decay: float = 1.0,
    ) -> Tensor:
        """Moves the pixels of the greatest gradients, together by ``step``, and projects on ball and box."""
        count = max(1, math.ceil(self._SHARE * x[0].numel()))
        share = step / count
        chosen = self._greatest(x, grad, count, share, lower, upper, mask)
        return super().step(
            x,
            torch.where(chosen, grad, 0),
            origin,
            step=share,
            radius=radius,
            lower=lower,
            upper=upper,
            mask=mask,
            velocity=velocity,
            decay=decay,
        )

    def _greatest(
        self, x: Tensor, grad: Tensor, count: int, share: Scalars, lower: Bound, upper: Bound, mask: Tensor | None
    ) -> Tensor:
        """Where the pixels are, bool like ``x``, that can take ``count`` shares, the greatest gradients first.

        A pixel takes one share, or what lies between it and its bound: pixels at their bounds would use up the step.
        """
        ahead = torch.where(grad > 0, upper - x, x - lower)
        parts = (ahead / _broadcast(share, x).clamp(min=torch.finfo(ahead.dtype).tiny)).clamp(0, 1)
        movable = (ahead > 0) & (grad != 0) if mask is None else (ahead > 0) & (grad != 0) & (mask != 0)
        # Whole numbers: the sums have the same bits on every device.
        parts = torch.where(movable, parts * self._PARTS, 0).ceil().long().flatten(1)
        order = torch.where(movable, grad.abs(), -1).flatten(1).argsort(dim=1, descending=True, stable=True)
        parts = parts.gather(1, order)
        taken = (parts > 0) & (parts.cumsum(dim=1) - parts < count * self._PARTS)
        return torch.zeros_like(taken).scatter_(1, order, taken).reshape(x.shape)


def _broadcast(values: Scalars, like: Tensor) -> Tensor:
    dtype = compute_dtype(like.dtype)
    if isinstance(values, Tensor):
        return per_sample(values.to(dtype), like)
    return torch.full((), values, dtype=dtype, device=like.device)


def norm_by_name(name: str) -> Norm:
    """Finds the norm called ``name``.

    Raises:
        ValueError: If there is none of that name.
    """
    norms: dict[str, type[Norm]] = {norm.name: norm for norm in (Linf, L2, L1)}
    if name not in norms:
        raise ValueError(f"norm: expected one of {', '.join(norms)}, got {name!r}")
    return norms[name]()
