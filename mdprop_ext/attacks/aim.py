"""What an attack asks of the model: its output at a point, the objective there, and whether that is a success."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mdprop_ext.attacks.objectives import Objective, SuccessRule
from mdprop_ext.attacks.parametrisations import Parametrisation
from mdprop_ext.attacks.projections import compute_dtype
from mdprop_ext.attacks.rows import take, take_samples


class Aim:
    """Model, objective and targets of one batch.

    Args:
        origin: The images ``[N, *]``.
        model: ``model input [N, *] -> output``, any output that the objective takes.
        objective: ``(output, targets) -> [N]``.
        parametrisation: The model input made of a point.
        targets: What the objective compares the output with.
    """

    def __init__(
        self,
        origin: Tensor,
        *,
        model: Callable[[Tensor], Any],
        objective: Objective,
        parametrisation: Parametrisation,
        targets: Any = None,
    ) -> None:
        self.targets = targets
        self._origin = origin
        self._model = model
        self._objective = objective
        self._parametrisation = parametrisation
        self._input = parametrisation.bind(origin)
        self._clean: tuple[Any] | None = None

    def at(self, targets: Any) -> Aim:
        """The same with other targets; the output on the clean images is computed once for both."""
        other = copy.copy(self)
        other.targets = targets
        return other

    def select(self, rows: Tensor) -> Aim:
        """The same for some samples of the batch, ``rows`` int64 ``[M]``."""
        count = len(self._origin)
        other = copy.copy(self)
        other._origin = take(self._origin, rows)
        other._input = self._parametrisation.bind(other._origin)
        other.targets = take_samples(self.targets, rows, count)
        other._clean = take_samples(self._clean, rows, count)
        return other

    def output(self, point: Tensor) -> Any:
        """The model's output at ``point [N, *]``."""
        model_input = self._input(point)
        # Many models work in place on their input, which must reach neither the search nor the caller's images.
        return self._model(model_input.clone() if model_input is point else model_input)

    def clean_output(self) -> Any:
        """The model's output on the images themselves, without gradient; computed at the first call."""
        if self._clean is None:
            with torch.no_grad():
                self._clean = (self.output(self._origin),)
        return self._clean[0]

    def values(self, output: Any) -> Tensor:
        """The objective of an output, ``[N]``, in fp32 at least.

        Raises:
            ValueError: If the objective does not give one value a sample.
        """
        count = len(self._origin)
        values = self._objective(output, self.targets)
        if not isinstance(values, Tensor) or values.shape != (count,):
            got = f"shape {list(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(f"objective: expected one value a sample, a tensor of shape [{count}], got {got}")
        return values.to(compute_dtype(values.dtype))

    def success(self, output: Any, values: Tensor) -> Tensor:
        """Whether each sample's attack has succeeded, bool ``[N]``: by the objective's rule, or risen values.

        Raises:
            ValueError: If the rule does not give one bool a sample.
        """
        rule: object = self._objective
        with torch.no_grad():
            if not isinstance(rule, SuccessRule):
                return values > self.values(self.clean_output())
            success: object = rule.success(self.clean_output(), output, self.targets)
        if not isinstance(success, Tensor) or success.dtype != torch.bool or success.shape != values.shape:
            got = f"{success.dtype} {list(success.shape)}" if isinstance(success, Tensor) else type(success).__name__
            raise ValueError(f"objective: expected success as bool of shape {list(values.shape)}, got {got}")
        return success
