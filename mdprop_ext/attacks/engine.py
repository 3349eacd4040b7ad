"""The attack loop, written once: ascend, project, keep what is best, let go of what has succeeded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mdprop_ext.attacks.aim import Aim
from mdprop_ext.attacks.gradients import Look, look, look_up
from mdprop_ext.attacks.options import AttackOptions
from mdprop_ext.attacks.projections import Bound, Norm, Scalars, per_sample
from mdprop_ext.attacks.rows import take, take_samples


@dataclass(frozen=True)
class Problem:
    """One batch to attack, everything on its device.

    Args:
        origin: The images ``[N, *]``, centres of the balls.
        aim: Model, objective and targets.
        norm: The norm of the balls.
        radius: Radius of the balls: a number or ``[N]``.
        step: Length of a step: a number or ``[N]``.
        lower: Least value of the box.
        upper: Greatest value of the box.
        mask: Bool, broadcasts to the images: the pixels that may change. None means all.
    """

    origin: Tensor
    aim: Aim
    norm: Norm
    radius: Scalars
    step: Scalars
    lower: Bound
    upper: Bound
    mask: Tensor | None = None

    def start(self, seed: int, restart: int) -> Tensor:
        """Draws starting points in the balls and the box."""
        start = self.norm.random_start(
            self.origin, self.radius, lower=self.lower, upper=self.upper, seed=seed, offset=restart
        )
        return start if self.mask is None else torch.where(self.mask, start, self.origin)

    def ascend(self, point: Tensor, gradient: Tensor, velocity: Tensor | None, decay: float) -> Tensor:
        """Takes one projected step up the gradient, or the velocity that it is added to in place."""
        return self.norm.step(
            point,
            gradient,
            self.origin,
            step=self.step,
            radius=self.radius,
            lower=self.lower,
            upper=self.upper,
            mask=self.mask,
            velocity=velocity,
            decay=decay,
        )

    def select(self, rows: Tensor) -> Problem:
        """The same for some samples of the batch, ``rows`` int64 ``[M]``."""
        radius, step = take_samples((self.radius, self.step), rows, len(self.origin))
        return replace(
            self,
            origin=take(self.origin, rows),
            aim=self.aim.select(rows),
            radius=radius,
            step=step,
            lower=self._selected(self.lower, rows),
            upper=self._selected(self.upper, rows),
            mask=None if self.mask is None else self._selected(self.mask, rows),
        )

    def _selected(self, value: Any, rows: Tensor) -> Any:
        """Rows of a tensor that may broadcast over the samples instead of having a row for each."""
        own = isinstance(value, Tensor) and value.dim() == self.origin.dim() and len(value) == len(self.origin)
        return take(value, rows) if own else value


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

    def select(self, rows: Tensor) -> Found:
        """Some of the samples, ``rows`` int64 ``[M]``."""
        return Found(take(self.images, rows), self.values[rows], self.steps[rows])

    def put(self, rows: Tensor, other: Found) -> Found:
        """Replaces the samples at ``rows`` by those of ``other``."""
        dtype = torch.promote_types(self.values.dtype, other.values.dtype)
        return Found(
            # A clone keeps the memory format, which the functional index_copy does not.
            self.images.clone().index_copy_(0, rows, other.images),
            self.values.to(dtype).index_copy(0, rows, other.values.to(dtype)),
            self.steps.index_copy(0, rows, other.steps),
        )


@dataclass(frozen=True, repr=False)
class AttackState:
    """Where an attack stands before a step.

    Args:
        restart: Which search this is, from 0.
        rows: Positions in the batch of the M samples that are still attacked, int64 ``[M]``.
        images: Their current images ``[M, *]``.
        values: Their objective ``[M]``.
        gradient: Its gradient ``[M, *]``, each sample's up to a positive factor; None after the last step.
    """

    restart: int
    rows: Tensor
    images: Tensor
    values: Tensor
    gradient: Tensor | None

    def __repr__(self) -> str:
        objective = float(self.values.double().mean())
        return f"AttackState(restart {self.restart}, {len(self.rows)} samples, mean objective {objective:.4g})"


#: ``observe(step, state)``: called for each point that is evaluated, with the gradient steps taken so far.
Observer = Callable[[int, AttackState], None]


def search(problem: Problem, options: AttackOptions, seed: int, observe: Observer | None = None) -> Found:
    """Searches the balls for a high objective.

    Every restart runs ``point <- project(point + step * direction(gradient of the summed objective))``. Samples do not
    interact but through the model, so that the sum gives each its own gradient, whatever the size of the batch.

    With ``early_stop`` a sample keeps the first point that succeeds and is taken out of the batch. That asks the device
    after every step for the samples that are left, which a CUDA graph cannot hold; without it no value is read.

    Args:
        problem: The batch.
        options: Steps, restarts, start, and what is kept.
        seed: Of the random starts; restart number r takes stream r.
        observe: Sees every point that is evaluated.

    Returns:
        What each sample keeps.
    """
    if options.inert:
        return Found.at(problem.origin.clone(), torch.nan, 0)
    climb = _Climb(problem, options, observe)
    for restart in range(options.restarts):
        start = problem.start(seed, restart) if options.random_start else problem.origin
        climb.run(start, restart)
        if climb.finished:
            break
    return climb.result()


class _Climb:
    """The samples still under attack, the best of each so far, and what the others have found."""

    def __init__(self, problem: Problem, options: AttackOptions, observe: Observer | None) -> None:
        self._problem = problem
        self._options = options
        self._observe = observe
        self._rows: Tensor | None = None  # positions in the whole batch; None while that is all of it
        self._best = self._found = Found.at(problem.origin, -torch.inf, 0)

    @property
    def finished(self) -> bool:
        """Whether every sample has succeeded."""
        return self._rows is not None and len(self._rows) == 0

    def result(self) -> Found:
        """What all samples of the batch keep."""
        return self._best if self._rows is None else self._found.put(self._rows, self._best)

    def run(self, start: Tensor, restart: int) -> None:
        """Climbs from ``start``, given for the whole batch."""
        options, point = self._options, start if self._rows is None else take(start, self._rows)
        velocity = None if options.momentum is None else torch.zeros_like(point)
        for step in range(options.steps):
            seen = look_up(
                self._problem.aim,
                point,
                with_success=options.early_stop,
                samples_apart=options.bn_mode == "running",
            )
            gradient = seen.gradient
            assert gradient is not None
            staying = self._note(point, seen, step, restart)
            if staying is not None:
                point, gradient, velocity = take_samples((point, gradient, velocity), staying, len(point))
                if self.finished:
                    return
            point = self._problem.ascend(point, gradient, velocity, options.momentum or 0.0)
        if not options.keep_best:
            self._best = Found.at(point, torch.nan, options.steps)
        if options.keep_best or options.early_stop:
            seen = look(self._problem.aim, point, with_success=options.early_stop)
            self._note(point, seen, options.steps, restart)

    def _note(self, point: Tensor, seen: Look, step: int, restart: int) -> Tensor | None:
        """Keeps what is worth it; returns the positions in ``point`` of the samples that go on, None if all do."""
        if self._observe is not None:
            rows = torch.arange(len(point), device=point.device) if self._rows is None else self._rows
            self._observe(step, AttackState(restart, rows, point, seen.values, seen.gradient))
        if self._options.keep_best:
            self._best = self._best.improved(point, seen.values, step)
        if seen.success is None or not bool(seen.success.any()):
            return None
        rows = torch.arange(len(point), device=point.device) if self._rows is None else self._rows
        done, staying = seen.success.nonzero().flatten(), (~seen.success).nonzero().flatten()
        succeeded = Found(point, seen.values, torch.full_like(rows, step))
        self._found = self._found.put(rows[done], succeeded.select(done))
        self._best, self._problem = self._best.select(staying), self._problem.select(staying)
        self._rows = rows[staying]
        return staying
