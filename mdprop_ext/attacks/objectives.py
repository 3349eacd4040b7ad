"""Objectives: what an attack makes as large as it can, one value a sample, from any model output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

#: ``objective(output, targets) -> [N]``, maximised. ``output`` is whatever the model returns; ``targets`` are the
#: labels given to the attack, or what its ``target`` made of them. Any callable serves.
Objective = Callable[[Any, Any], Tensor]

#: ``rule(clean_output, y, generator) -> targets``: derives targets from the model's output on the clean batch.
TargetRule = Callable[[Any, Any, torch.Generator], Any]

#: Picks the tensor that an objective works on out of the model's output.
Select = Callable[[Any], Tensor]


@runtime_checkable
class SuccessRule(Protocol):
    """An objective that also says for which samples the attack succeeded.

    Without it an attack counts as successful where it raised the objective above its value on the clean input.
    """

    def success(self, clean_output: Any, output: Any, targets: Any) -> Tensor:
        """Tells the samples where the attack succeeded, as bool ``[N]``."""
        ...


class CrossEntropy:
    r"""Cross entropy of logits: :math:`-\log p_y`, raised away from labels or, targeted, lowered towards them.

    Success: the predicted class differs from the label; targeted: it is the target.

    Args:
        targeted: Whether the classes are ones to reach instead of ones to leave.
        select: Picks the logits ``[N, K]`` out of the model's output; None where the output is the logits.

    Example:
        >>> CrossEntropy()(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
        tensor([0.6931])
    """

    def __init__(self, *, targeted: bool = False, select: Select | None = None) -> None:
        self.targeted = targeted
        self._select = select

    def __call__(self, output: Any, targets: Any) -> Tensor:
        """Values ``[N]`` of logits ``[N, K]`` and classes int64 ``[N]``."""
        logits = selected_rows(output, self._select, "logits")
        loss = F.cross_entropy(logits, _classes(targets), reduction="none")
        return -loss if self.targeted else loss

    def success(self, clean_output: Any, output: Any, targets: Any) -> Tensor:
        """Whether the prediction left the label, or reached the target."""
        reached = selected_rows(output, self._select, "logits").argmax(dim=1) == _classes(targets)
        return reached if self.targeted else ~reached


class FeatureTarget:
    r"""Pull of an embedding towards T target embeddings: :math:`-\frac1T \sum_t \lVert f(x) - q_t \rVert_2`.

    Plain distances, not squared ones: for T > 1 the optimum is the targets' geometric median.

    Success: the embedding is nearer to its targets, by mean distance, than to the embedding of the clean image.

    Args:
        select: Picks the embeddings ``[N, D]`` out of the model's output; None where the output is the embeddings.

    Reference:
        Sabour, Cao, Faghri, Fleet: Adversarial Manipulation of Deep Representations, ICLR 2016, arXiv:1511.05122.
    """

    def __init__(self, *, select: Select | None = None) -> None:
        self._select = select

    def __call__(self, output: Any, targets: Any) -> Tensor:
        """Values ``[N]`` of embeddings ``[N, D]`` and targets ``[N, T, D]``."""
        embeddings = selected_rows(output, self._select, "embeddings")
        targets = _target_embeddings(targets, embeddings)
        distances: Tensor = torch.linalg.vector_norm(embeddings.unsqueeze(1) - targets, dim=2)
        return -distances.mean(dim=1)

    def success(self, clean_output: Any, output: Any, targets: Any) -> Tensor:
        """Whether the embedding is nearer to its targets than to where it started."""
        start, end = (selected_rows(each, self._select, "embeddings") for each in (clean_output, output))
        drift: Tensor = torch.linalg.vector_norm(end - start, dim=1)
        return -self(output, targets) < drift


def selected_rows(output: Any, select: Select | None, meaning: str) -> Tensor:
    """Picks a tensor of one row a sample out of a model output, in fp32 at least.

    Args:
        output: The model's output.
        select: Picks the tensor; None where the output is the tensor.
        meaning: What the rows are, for the error messages.

    Returns:
        The rows ``[N, K]``; half types are cast to fp32, in which distances and logarithms do not saturate.

    Raises:
        TypeError: If no tensor comes out.
        ValueError: If the tensor does not have one row a sample.
    """
    rows = output if select is None else select(output)
    if not isinstance(rows, Tensor):
        hint = "; pass select= to pick them out of the model's output" if select is None else " from select="
        raise TypeError(f"output: expected a tensor of {meaning}, got {type(rows).__name__}{hint}")
    if rows.dim() != 2:
        raise ValueError(f"output: expected {meaning} of shape [N, K], got {list(rows.shape)}")
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows


def _classes(targets: Any) -> Tensor:
    if not isinstance(targets, Tensor) or targets.dim() != 1 or targets.dtype != torch.int64:
        got = f"{targets.dtype} {list(targets.shape)}" if isinstance(targets, Tensor) else type(targets).__name__
        raise TypeError(f"y: cross entropy expects classes as int64 [N], got {got}")
    return targets


def _target_embeddings(targets: Any, embeddings: Tensor) -> Tensor:
    if not isinstance(targets, Tensor):
        raise TypeError(f"targets: expected embeddings [N, T, D], got {type(targets).__name__}")
    count, width = embeddings.shape
    if targets.dim() != 3 or targets.shape[0] != count or targets.shape[2] != width:
        raise ValueError(f"targets: expected embeddings [{count}, T, {width}], got {list(targets.shape)}")
    return targets.to(embeddings.dtype)
