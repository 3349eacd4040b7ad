"""Norms: the length of a perturbation, a random start in the ball, and the projected ascent step."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from mdprop_ext import ops

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

    name: str

    @abstractmethod
    def length(self, perturbation: Tensor) -> Tensor:
        """Length of each sample of ``perturbation [N, *]``, as ``[N]``."""

    @abstractmethod
    def unit_noise(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Noise shaped like ``like [N, *]``, uniform in the unit ball of each sample."""

    def distance(self, x: Tensor, origin: Tensor) -> Tensor:
        """Length of ``x - origin`` for each sample, as ``[N]``, in fp32 at least."""
        dtype = compute_dtype(x.dtype)
        return self.length(x.to(dtype) - origin.to(dtype))

    def random_start(
        self, origin: Tensor, radius: Scalars, *, lower: Bound, upper: Bound, generator: torch.Generator
    ) -> Tensor:
        """Draws a point uniformly in the ball, then projects it on ball and box.

        Args:
            origin: Centre of the balls ``[N, *]``.
            radius: Radius, in units of ``origin``: a number or ``[N]``.
            lower: Least value of the box.
            upper: Greatest value of the box.
            generator: Source of the draws, on the device of ``origin``.

        Returns:
            The starting points ``[N, *]``, in the dtype and memory format of ``origin``.
        """
        noise = self.unit_noise(origin, generator)
        scale = per_sample(radius, origin) if isinstance(radius, Tensor) else radius
        start = (origin + noise * scale).to(origin.dtype)
        # A step of length zero is the projection alone, exact after rounding to the storage type.
        return self.step(start, start, origin, step=0.0, radius=radius, lower=lower, upper=upper)

    def step(
        self, x: Tensor, grad: Tensor, origin: Tensor, *, step: Scalars, radius: Scalars, lower: Bound, upper: Bound
    ) -> Tensor:
        """Steps up ``grad``: ``project(x + step * direction(grad))``; see :func:`mdprop_ext.ops.pgd_step`."""
        return ops.pgd_step(x, grad, origin, norm=self.name, step=step, radius=radius, lower=lower, upper=upper)


class Linf(Norm):
    """Greatest absolute change of a pixel; a step moves every pixel by the sign of its gradient."""

    name = "linf"

    def length(self, perturbation: Tensor) -> Tensor:
        """Greatest absolute value of each sample, ``[N]``."""
        return perturbation.flatten(1).abs().amax(dim=1)

    def unit_noise(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Every pixel uniform in [-1, 1]."""
        return torch.empty_like(like, dtype=compute_dtype(like.dtype)).uniform_(-1.0, 1.0, generator=generator)


class L2(Norm):
    """Euclidean length of the change; a step moves along the gradient scaled to unit length."""

    name = "l2"

    def length(self, perturbation: Tensor) -> Tensor:
        """Euclidean length of each sample, ``[N]``."""
        length: Tensor = torch.linalg.vector_norm(perturbation.flatten(1), dim=1)
        return length

    def unit_noise(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """A uniform direction, and a radius whose power d is uniform."""
        noise = torch.empty_like(like, dtype=compute_dtype(like.dtype)).normal_(generator=generator)
        # The share of the ball inside radius r grows as r^d, so that r = u^(1/d) for a uniform u.
        uniform = torch.rand(len(like), generator=generator, dtype=noise.dtype, device=noise.device)
        radius = uniform ** (1.0 / max(1, like[0].numel()))
        return noise * per_sample(radius / self.length(noise).clamp_min(torch.finfo(noise.dtype).tiny), noise)


def norm_by_name(name: str) -> Norm:
    """Finds the norm called ``name``.

    Raises:
        ValueError: If there is none of that name.
    """
    norms: dict[str, type[Norm]] = {norm.name: norm for norm in (Linf, L2)}
    if name not in norms:
        raise ValueError(f"norm: expected one of {', '.join(norms)}, got {name!r}")
    return norms[name]()
