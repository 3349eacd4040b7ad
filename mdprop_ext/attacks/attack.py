"""The base of every attack: checks, isolation from the caller's state, targets and the report."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mdprop_ext.attacks.engine import Problem, search
from mdprop_ext.attacks.model_state import (
    attack_mode,
    derived_generator,
    drawn_seed,
    forked_random_state,
    usable_by_autograd,
    without_replication,
)
from mdprop_ext.attacks.objectives import Objective, SuccessRule, TargetRule
from mdprop_ext.attacks.options import AttackOptions
from mdprop_ext.attacks.parametrisations import Parametrisation
from mdprop_ext.attacks.projections import Norm, compute_dtype, per_sample
from mdprop_ext.nn import use_branch


@dataclass(frozen=True)
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


class Attack:
    """Ascends ``objective(model(input(point)), targets)`` by projected gradient steps.

    A call changes nothing outside it: parameters, ``.grad``, buffers, ``training`` and ``requires_grad`` flags and the
    global random state are as before, also when the model raises (``bn_mode="train"`` updates running statistics, as
    asked). It runs under ``torch.no_grad()``, ``torch.inference_mode()`` and autocast; the perturbation keeps the dtype
    of the images, so that autocast leaves it in fp32.

    Args:
        model: The attacked model.
        objective: Value of each sample, to be maximised.
        target: What the objective gets as targets: None for the labels as given, one class for all samples, a tensor
            with one row a sample, or a rule on the model's output for the clean batch.
        norm: The norm of the ball.
        parametrisation: What is varied, and the model input made of it.
        options: How to search.
        generator: Source of all random numbers; each call draws one seed from it, so that a CPU generator serves every
            device. None means one of the attack's own, seeded at construction by a digest of the global random state,
            which it reads without advancing it. It goes on from call to call: build an attack once rather than for each
            batch.

    Raises:
        TypeError: If an argument has the wrong type.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        objective: Objective,
        target: int | Tensor | TargetRule | None,
        norm: Norm,
        parametrisation: Parametrisation,
        options: AttackOptions,
        generator: torch.Generator | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
        if not callable(objective):
            raise TypeError(f"objective: expected a callable (output, targets) -> [N], got {type(objective).__name__}")
        if target is not None and not isinstance(target, int | Tensor) and not callable(target):
            raise TypeError(f"target: expected a class, a tensor, a callable or None, got {type(target).__name__}")
        self.model = model
        self.objective = objective
        self.target = target
        self.norm = norm
        self.parametrisation = parametrisation
        self.options = options
        self.generator = derived_generator() if generator is None else generator
        self._range_checked = False

    def __call__(self, x: Tensor, y: Any = None) -> Tensor:
        """Attacks a batch.

        Args:
            x: Images ``[N, *]``, floating point, within ``bounds``.
            y: What the objective compares the output with, mostly labels int64 ``[N]``.

        Returns:
            The attacked images ``[N, *]``, detached; the input bit for bit where ``eps`` or ``steps`` is 0.

        Raises:
            TypeError: If ``x`` is not a floating-point tensor.
            ValueError: If shapes disagree, or the objective gives anything but one differentiable value a sample.
        """
        self._check_batch(x, y)
        if self.options.inert or len(x) == 0:
            return x.detach().clone()
        with self._isolated(x) as generator:
            x, y = usable_by_autograd(x), usable_by_autograd(y)
            forward = self._forward(x)
            targets = self._targets(x, y, forward, generator)
            return self._kept(x, search(self._problem(x, forward, targets), self.options, generator).images)

    def run(self, x: Tensor, y: Any = None) -> AttackResult:
        """Attacks a batch and reports on it, for two forward passes more than the call alone.

        Args:
            x: Images ``[N, *]``, floating point, within ``bounds``.
            y: What the objective compares the output with, mostly labels int64 ``[N]``.

        Returns:
            The attacked images with success, objective, distance and steps of each sample.

        Raises:
            TypeError: If ``x`` is not a floating-point tensor.
            ValueError: If shapes disagree, or the objective gives anything but one differentiable value a sample.
        """
        self._check_batch(x, y)
        with self._isolated(x) as generator:
            x, y = usable_by_autograd(x), usable_by_autograd(y)
            forward = self._forward(x)
            targets = self._targets(x, y, forward, generator)
            found = search(self._problem(x, forward, targets), self.options, generator)
            x_adv = self._kept(x, found.images)
            with torch.no_grad():
                clean_output, output = forward(x), forward(x_adv)
                objective = self._values(output, targets, len(x))
                success = self._success(clean_output, output, targets, objective)
            return AttackResult(x_adv, success, objective, self.norm.distance(x_adv, x), found.steps)

    @contextmanager
    def _isolated(self, x: Tensor) -> Iterator[torch.Generator]:
        """Borrows the model for one call; yields the call's own generator, on the device of ``x``."""
        seed = drawn_seed(self.generator)
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            forked_random_state(seed, x.device),
            attack_mode(self.model, self.options.bn_mode),
            self._route(),
        ):
            yield torch.Generator(x.device).manual_seed(seed)

    def _route(self) -> AbstractContextManager[object]:
        return nullcontext() if self.options.branch is None else use_branch(self.model, self.options.branch)

    def _forward(self, x: Tensor) -> Callable[[Tensor], Any]:
        model, model_input = without_replication(self.model), self.parametrisation.bind(x)
        return lambda point: model(model_input(point))

    def _targets(self, x: Tensor, y: Any, forward: Callable[[Tensor], Any], generator: torch.Generator) -> Any:
        target = self.target
        if target is None:
            return y
        if isinstance(target, int):
            return torch.full((len(x),), target, dtype=torch.int64, device=x.device)
        if isinstance(target, Tensor):
            return usable_by_autograd(target).to(x.device)
        with torch.no_grad():
            return target(forward(x), y, generator)

    def _problem(self, x: Tensor, forward: Callable[[Tensor], Any], targets: Any) -> Problem:
        options = self.options
        radius, step = (v.to(x.device) if isinstance(v, Tensor) else v for v in (options.eps, options.alpha))
        lower, upper = (v.to(x) if isinstance(v, Tensor) else v for v in options.bounds)
        return Problem(
            origin=x,
            evaluate=lambda point: self._values(forward(point), targets, len(x)),
            norm=self.norm,
            radius=radius,
            step=step,
            lower=lower,
            upper=upper,
        )

    def _values(self, output: Any, targets: Any, count: int) -> Tensor:
        values = self.objective(output, targets)
        if not isinstance(values, Tensor) or values.shape != (count,):
            got = f"shape {list(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(f"objective: expected one value a sample, a tensor of shape [{count}], got {got}")
        return values.to(compute_dtype(values.dtype))

    def _success(self, clean_output: Any, output: Any, targets: Any, values: Tensor) -> Tensor:
        rule: object = self.objective
        if isinstance(rule, SuccessRule):
            return rule.success(clean_output, output, targets)
        return values > self._values(clean_output, targets, len(values))

    def _kept(self, x: Tensor, images: Tensor) -> Tensor:
        """Gives samples of radius 0 back bit for bit, also where they leave the bounds."""
        eps = self.options.eps
        if not isinstance(eps, Tensor):
            return images
        return torch.where(per_sample((eps > 0).to(x.device), x), images, x)

    def _check_batch(self, x: Tensor, y: Any) -> None:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"x: expected a floating-point tensor, got {got}")
        if x.dim() < 2:
            raise ValueError(f"x: expected a batch [N, *] of two dimensions or more, got shape {list(x.shape)}")
        rows = {"y": y, "target": self.target, "eps": self.options.eps, "alpha": self.options.alpha}
        for name, value in rows.items():
            if isinstance(value, Tensor) and (value.dim() == 0 or len(value) != len(x)):
                raise ValueError(f"{name}: expected one row a sample, {len(x)} in all, got shape {list(value.shape)}")
        # Looking at the values makes a GPU wait, so only the first batch is checked: images of a wrong scale show
        # there.
        if not self._range_checked:
            self._range_checked = True
            self._warn_if_outside(x)

    def _warn_if_outside(self, x: Tensor) -> None:
        lower, upper = (v.to(x) if isinstance(v, Tensor) else v for v in self.options.bounds)
        if bool(((x < lower) | (x > upper)).any()):
            warnings.warn(
                f"x has values from {float(x.min()):.4g} to {float(x.max()):.4g}, outside the attack's bounds, to "
                "which its result is clipped; for normalised images pass pixels and give the attack mean= and std=",
                stacklevel=4,
            )
