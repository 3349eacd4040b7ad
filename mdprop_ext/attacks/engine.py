"""The attack loop, written once: ascend, project, keep what is best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mdprop_ext.attacks.options import AttackOptions
from mdprop_ext.attacks.projections import Bound, Norm, Scalars, per_sample


@dataclass(frozen=True)
class Problem:
    """One batch to attack, everything on its device.

    Args:
        origin: The images ``[N, *]``, centres of the balls.
        evaluate: ``point [N, *] -> objective [N]``, differentiable: objective, model and parametrisation in one.
        norm: The norm of the balls.
        radius: Radius of the balls: a number or ``[N]``.
        step: Length of a step: a number or ``[N]``.
        lower: Least value of the box.
        upper: Greatest value of the box.
    """

    origin: Tensor
    evaluate: Callable[[Tensor], Tensor]
    norm: Norm
    radius: Scalars
    step: Scalars
    lower: Bound
    upper: Bound

    def start(self, generator: torch.Generator) -> Tensor:
        """Draws starting points in the balls and the box."""
        return self.norm.random_start(self.origin, self.radius, lower=self.lower, upper=self.upper, generator=generator)

    def ascend(self, point: Tensor, gradient: Tensor) -> Tensor:
        """Takes one projected step up the gradient."""
        return self.norm.step(
            point, gradient, self.origin, step=self.step, radius=self.radius, lower=self.lower, upper=self.upper
        )


@dataclass(frozen=True)
class Found:
    """The iterate that each sample keeps.

    Args:
        images: The iterates ``[N, *]``.
        values: Their objective ``[N]``; NaN where it was not evaluated.
        steps: The gradient steps that led to them, int64 ``[N]``.
    """

    images: Tensor
    values: Tensor
    steps: Tensor

    @staticmethod
    def at(images: Tensor, value: float, steps: int) -> Found:
        """The same iterate, value and number of steps for every sample."""
        count, device = len(images), images.device
        return Found(
            images,
            torch.full((count,), value, device=device),
            torch.full((count,), steps, dtype=torch.int64, device=device),
        )

    def improved(self, images: Tensor, values: Tensor, steps: int) -> Found:
        """Takes over the samples whose objective rose; a NaN replaces nothing."""
        better = values > self.values
        return Found(
            torch.where(per_sample(better, images), images, self.images),
            torch.where(better, values, self.values),
            self.steps.masked_fill(better, steps),
        )


def search(problem: Problem, options: AttackOptions, generator: torch.Generator) -> Found:
    """Searches the balls for a high objective.

    Every restart runs ``point <- project(point + step * direction(gradient of the summed objective))``. Samples do not
    interact but through the model, so that the sum gives each its own gradient, whatever the size of the batch.

    Args:
        problem: The batch.
        options: Steps, restarts, start, and what is kept.
        generator: Source of the random starts, on the device of the batch.

    Returns:
        What each sample keeps.
    """
    if options.inert:
        return Found.at(problem.origin.clone(), torch.nan, 0)
    found = Found.at(problem.origin, -torch.inf, 0)
    for _ in range(options.restarts):
        point = problem.start(generator) if options.random_start else problem.origin
        for step in range(options.steps):
            values, gradient = value_and_gradient(problem.evaluate, point)
            if options.keep_best:
                found = found.improved(point, values, step)
            point = problem.ascend(point, gradient)
        if options.keep_best:
            with torch.no_grad():
                found = found.improved(point, problem.evaluate(point), options.steps)
        else:
            found = Found.at(point, torch.nan, options.steps)
    return found


def value_and_gradient(evaluate: Callable[[Tensor], Tensor], point: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluates ``point [N, *]``: the objective ``[N]`` and the gradient of its sum ``[N, *]``, both detached.

    Raises:
        ValueError: If the objective does not depend on the point.
    """
    variable = point.detach().requires_grad_()
    values = evaluate(variable)
    if not values.requires_grad:
        raise ValueError("objective: expected values that depend on the input differentiably; was the output detached?")
    (gradient,) = torch.autograd.grad(values.sum(), variable)
    return values.detach(), gradient
