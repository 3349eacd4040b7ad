"""The base of every attack: checks, isolation from the caller's state, targets and the report."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from mdprop_ext._arguments import check_module, check_seed
from mdprop_ext.attacks.aim import Aim
from mdprop_ext.attacks.batch_checks import check_batch, warn_of_pixels
from mdprop_ext.attacks.description import described, short
from mdprop_ext.attacks.engine import AttackState, Observer, Problem, search
from mdprop_ext.attacks.model_state import (
    attack_mode,
    child_seed,
    derived_generator,
    drawn_seed,
    forked_random_state,
    usable_by_autograd,
)
from mdprop_ext.attacks.objectives import Objective, TargetRule
from mdprop_ext.attacks.options import AttackOptions, warn_if_wider_than_pixels
from mdprop_ext.attacks.parametrisations import Parametrisation
from mdprop_ext.attacks.projections import Norm, per_sample
from mdprop_ext.attacks.result import AttackResult
from mdprop_ext.attacks.rows import map_tensors
from mdprop_ext.nn import use_branch
from mdprop_ext.ops._check import kernel_memory_format

_WORTH_A_WARNING = 0.1  # share of samples without gradient


class Attack:
    """Ascends ``objective(model(input(point)), targets)`` by projected gradient steps.

    A call changes nothing outside it: parameters, ``.grad``, buffers, ``training`` and ``requires_grad`` flags and the
    global random state are as before, also when the model raises (``bn_mode="train"`` updates running statistics, as
    asked). It runs under ``torch.no_grad()``, ``torch.inference_mode()`` and autocast; the perturbation keeps the dtype
    of the images, so that autocast leaves it in fp32.

    The first batch is looked at for what mostly goes wrong: a warning tells of images outside the bounds or with NaN in
    them, and of samples without any gradient.

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
        output_fn: Callable[[Any], Any] | None = None,
        callback: Observer | None = None,
    ) -> None:
        check_module("model", model)
        if not callable(objective):
            raise TypeError(f"objective: expected a callable (output, targets) -> [N], got {type(objective).__name__}")
        if isinstance(target, bool) or not (target is None or isinstance(target, int | Tensor) or callable(target)):
            raise TypeError(f"target: expected a class, a tensor, a callable or None, got {type(target).__name__}")
        for name, function in (("output_fn", output_fn), ("callback", callback)):
            if function is not None and not callable(function):
                raise TypeError(f"{name}: expected a callable or None, got {type(function).__name__}")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"generator: expected a torch.Generator or None, got {type(generator).__name__}")
        self.model = model
        self.objective = objective
        self.target = target
        self.norm = norm
        self.parametrisation = parametrisation
        self.options = options
        self.generator = derived_generator() if generator is None else generator
        self.output_fn = output_fn
        self.callback = callback
        self._first_batch = True
        if norm.name == "linf":
            warn_if_wider_than_pixels(options, stacklevel=3)

    def __call__(self, x: Tensor, y: Any = None, *, seed: int | None = None) -> Tensor:
        """Attacks a batch.

        Args:
            x: Images ``[N, *]``, floating point, within ``bounds``.
            y: What the objective compares the output with, mostly labels int64 ``[N]``.
            seed: Of this call, in place of one drawn from the generator: an int64 >= 0.

        Returns:
            The attacked images ``[N, *]``, detached; the input bit for bit where ``eps`` or ``steps`` is 0.

        Raises:
            TypeError: If ``x`` is not a floating-point tensor.
            ValueError: If shapes disagree, a class is none of the model's, or the objective gives anything but one
                differentiable value a sample.
        """
        self._check_batch(x, y)
        if self.options.inert or len(x) == 0:
            return x.detach().clone()
        with self._isolated(x, seed) as call_seed:
            return self._found(usable_by_autograd(x), usable_by_autograd(y), call_seed)[0]

    def run(self, x: Tensor, y: Any = None, *, seed: int | None = None) -> AttackResult:
        """Attacks a batch and reports on it, for two forward passes more than the call alone.

        Args:
            x: Images ``[N, *]``, floating point, within ``bounds``.
            y: What the objective compares the output with, mostly labels int64 ``[N]``.
            seed: Of this call, in place of one drawn from the generator: an int64 >= 0.

        Returns:
            The attacked images with success, objective, distance and steps of each sample.

        Raises:
            TypeError: If ``x`` is not a floating-point tensor.
            ValueError: If shapes disagree, a class is none of the model's, or the objective gives anything but one
                differentiable value a sample.
        """
        self._check_batch(x, y)
        if len(x) == 0:
            return AttackResult.empty(x)
        with self._isolated(x, seed) as call_seed:
            x = usable_by_autograd(x)
            x_adv, steps, aim = self._found(x, usable_by_autograd(y), call_seed)
            with torch.no_grad():
                output = aim.output(x_adv)
                objective = aim.values(output)
            return AttackResult(x_adv, aim.success(output, objective), objective, self.norm.distance(x_adv, x), steps)

    def settings(self) -> dict[str, Any]:
        """Tells by JSON values all that decides about results, weights of the model included, but the seed.

        Functions count by their name: their code and what they captured are not looked at.
        """
        parts = (self.model, self.norm.name, self.objective, self.target, self.parametrisation, self.output_fn)
        names = ("model", "norm", "objective", "target", "parametrisation", "output_fn")
        options = {field.name: described(getattr(self.options, field.name)) for field in fields(self.options)}
        return {"attack": type(self).__name__, **dict(zip(names, map(described, parts), strict=True)), **options}

    def __repr__(self) -> str:
        shown = {"model": type(self.model).__name__, **self.options.shown(), "norm": self.norm.name}
        if self.target is not None:
            shown["target"] = short(self.target)
        shown["objective"] = short(self.objective)
        return f"{type(self).__name__}({', '.join(f'{name}={text}' for name, text in shown.items())})"

    @contextmanager
    def _isolated(self, x: Tensor, seed: int | None) -> Iterator[int]:
        """Borrows the model for one call; yields the call's seed."""
        if seed is None:
            seed = drawn_seed(self.generator)
        else:
            check_seed(seed)
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            forked_random_state(seed, x.device),
            attack_mode(self.model, self.options.bn_mode),
            self._route(),
        ):
            yield seed

    def _route(self) -> AbstractContextManager[object]:
        return nullcontext() if self.options.branch is None else use_branch(self.model, self.options.branch)

    def _found(self, x: Tensor, y: Any, seed: int) -> tuple[Tensor, Tensor, Aim]:
        """Searches; returns the attacked images, the steps that they took, and what was aimed at."""
        x = x.contiguous(memory_format=kernel_memory_format(x))  # the layout that every step has
        aim = Aim(x, model=self._forward, objective=self.objective, parametrisation=self.parametrisation)
        aim = aim.at(self._targets(x, y, aim, torch.Generator(x.device).manual_seed(seed)))
        stuck: list[float] = []
        found = search(self._problem(x, aim), self.options, child_seed(seed, 0), self._observer(x.device, stuck))
        self._first_batch = False
        if stuck and stuck[0] >= _WORTH_A_WARNING:
            warnings.warn(
                f"the objective has no gradient at the starting points of {100 * stuck[0]:.0f} % of the samples, so "
                "they hardly move: the model may saturate or round, or the objective be at its optimum there",
                stacklevel=3,
            )
        return self._kept(x, found.images), found.steps, aim

    def _forward(self, batch: Tensor) -> Any:
        output = self.model(batch)
        return output if self.output_fn is None else self.output_fn(output)

    def _targets(self, x: Tensor, y: Any, aim: Aim, generator: torch.Generator) -> Any:
        target = self.target
        if target is None:
            return y
        if isinstance(target, int):
            return torch.full((len(x),), target, dtype=torch.int64, device=x.device)
        if isinstance(target, Tensor):
            return usable_by_autograd(target).to(x.device)
        clean_output = aim.clean_output()
        with torch.no_grad():
            return target(clean_output, y, generator)

    def _problem(self, x: Tensor, aim: Aim) -> Problem:
        options = self.options
        radius, step = (v.to(x.device) if isinstance(v, Tensor) else v for v in (options.eps, options.alpha))
        lower, upper = (v.to(x) if isinstance(v, Tensor) else v for v in options.bounds)
        return Problem(
            origin=x,
            aim=aim,
            norm=self.norm,
            radius=radius,
            step=step,
            lower=lower,
            upper=upper,
            mask=None if options.mask is None else options.mask.to(x.device),
        )

    def _observer(self, device: torch.device, stuck: list[float]) -> Observer | None:
        """What watches the search: the callback, and in the first batch the share of samples without gradient."""
        # Looking at values makes a GPU wait, which is why only the first batch is looked at.
        watched = self._first_batch
        callback = self.callback
        if not watched and callback is None:
            return None

        def observe(step: int, state: AttackState) -> None:
            if watched and not stuck and state.gradient is not None:
                stuck.append(float((state.gradient == 0).flatten(1).all(dim=1).double().mean()))
            if callback is not None:
                with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                    callback(step, AttackState(**map_tensors(torch.clone, vars(state))))

        return observe

    def _kept(self, x: Tensor, images: Tensor) -> Tensor:
        """Gives samples of radius 0 back bit for bit, also where they leave the bounds."""
        eps = self.options.eps
        if not isinstance(eps, Tensor):
            return images
        return torch.where(per_sample((eps > 0).to(x.device), x), images, x)

    def _check_batch(self, x: Tensor, y: Any) -> None:
        check_batch(x, y, target=self.target, options=self.options)
        if self._first_batch:
            warn_of_pixels(x, self.options, stacklevel=3)
