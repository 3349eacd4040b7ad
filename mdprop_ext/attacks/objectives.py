"""Objectives: what an attack makes as large as it can, one value a sample, from any model output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

#: ``objective(output, targets) -> [N]``, maximised. ``output`` is whatever the model returns; ``targets`` are the
#: labels given to the attack, or what its ``target`` made of them. Any callable serves.
Objective = Callable[[Any, Any], Tensor]

#: ``rule(clean_output, y, generator) -> targets``: derives targets from the model's output on the clean batch.
TargetRule = Callable[[Any, Any, torch.Generator], Any]

#: Distance of embeddings, as in :func:`mdprop_ext.ops.knn_topk`: ``"dot"`` is the negative inner product.
DistanceName = Literal["euclidean", "sqeuclidean", "cosine", "dot"]


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

    Example:
        >>> CrossEntropy()(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
        tensor([0.6931])
    """

    def __init__(self, *, targeted: bool = False) -> None:
        self.targeted = targeted

    def __repr__(self) -> str:
        return f"CrossEntropy(targeted={self.targeted})"

    def __call__(self, output: Any, targets: Any) -> Tensor:
        """Values ``[N]`` of logits ``[N, K]`` and classes int64 ``[N]``.

        Raises:
            TypeError: If logits or classes are something else.
            ValueError: If a class is not from 0 to K - 1; on a GPU, which is not waited for, torch asserts it.
        """
        logits, classes = rows_of_output(output, "logits"), self._classes(targets)
        check_columns(self._source, classes, logits)
        loss = F.cross_entropy(logits, classes, reduction="none")
        return -loss if self.targeted else loss

    def success(self, clean_output: Any, output: Any, targets: Any) -> Tensor:
        """Whether the prediction left the label, or reached the target."""
        reached = rows_of_output(output, "logits").argmax(dim=1) == self._classes(targets)
        return reached if self.targeted else ~reached

    @property
    def _source(self) -> str:
        """The argument of the attack that the classes come from."""
        return "target" if self.targeted else "y"

    def _classes(self, targets: Any) -> Tensor:
        if not isinstance(targets, Tensor) or targets.dim() != 1 or targets.dtype != torch.int64:
            got = f"{targets.dtype} {list(targets.shape)}" if isinstance(targets, Tensor) else type(targets).__name__
            raise TypeError(f"{self._source}: cross entropy expects classes as int64 [N], got {got}")
        return targets


class FeatureTarget:
    r"""Pull of an embedding towards T target embeddings: :math:`-\frac1T \sum_t d(f(x), q_t)`.

    Plain Euclidean distances, the default, have their optimum for T > 1 at the targets' geometric median, squared ones
    at their mean. For binary codes in [-1, 1] take ``"dot"``, Hamming distance up to a constant factor and term.

    Success: the embedding is nearer to its targets, by mean distance, than to the embedding of the clean image.

    Args:
        distance: ``"euclidean"``, ``"sqeuclidean"``, ``"cosine"`` or ``"dot"``.

    Raises:
        ValueError: If the distance is unknown.

    Reference:
        Sabour, Cao, Faghri, Fleet: Adversarial Manipulation of Deep Representations, ICLR 2016, arXiv:1511.05122.
    """

    def __init__(self, *, distance: DistanceName = "euclidean") -> None:
        self.distance = _known_distance(distance)

    def __repr__(self) -> str:
        return f"FeatureTarget(distance={self.distance!r})"

    def __call__(self, output: Any, targets: Any) -> Tensor:
        """Values ``[N]`` of embeddings ``[N, D]`` and targets ``[N, D]`` or ``[N, T, D]``."""
        return -_mean_distance(rows_of_output(output, "embeddings"), targets, self.distance)

    def success(self, clean_output: Any, output: Any, targets: Any) -> Tensor:
        """Whether the embedding is nearer to its targets than to where it started."""
        start, end = (rows_of_output(each, "embeddings") for each in (clean_output, output))
        return -self(output, targets) < _mean_distance(end, start, self.distance)


class FeatureDistance:
    r"""Push of an embedding away from T anchor embeddings: :math:`\frac1T \sum_t d(f(x), a_t)`.

    Success: the distance is greater than that of the clean image. Squared distances, the default, push a point that has
    gone far as hard as one that has not.

    Args:
        distance: ``"euclidean"``, ``"sqeuclidean"``, ``"cosine"`` or ``"dot"``.

    Raises:
        ValueError: If the distance is unknown.
    """

    def __init__(self, *, distance: DistanceName = "sqeuclidean") -> None:
        self.distance = _known_distance(distance)

    def __repr__(self) -> str:
        return f"FeatureDistance(distance={self.distance!r})"

    def __call__(self, output: Any, targets: Any) -> Tensor:
        """Values ``[N]`` of embeddings ``[N, D]`` and anchors ``[N, D]`` or ``[N, T, D]``."""
        return _mean_distance(rows_of_output(output, "embeddings"), targets, self.distance)


def rows_of_output(output: Any, meaning: str) -> Tensor:
    """Checks that a model output is one row a sample, and gives it in fp32 at least.

    Args:
        output: The model's output.
        meaning: What the rows are, for the error messages.

    Returns:
        The rows ``[N, K]``; half types are cast to fp32, in which distances and logarithms do not saturate.

    Raises:
        TypeError: If it is no tensor.
        ValueError: If it does not have one row a sample.
    """
    if not isinstance(output, Tensor):
        raise TypeError(
            f"output: expected a tensor of {meaning}, got {type(output).__name__}; give the attack output_fn= to pick "
            "them out of the model's output"
        )
    if output.dim() != 2:
        raise ValueError(f"output: expected {meaning} of shape [N, K], got {list(output.shape)}")
    return output.float() if output.dtype in (torch.float16, torch.bfloat16) else output


def check_columns(name: str, classes: Tensor, logits: Tensor) -> None:
    """Raises unless ``logits [N, K]`` have a column for each of ``classes [N]``.

    Only classes on the CPU are looked at: a GPU would have to be waited for.

    Raises:
        ValueError: If a class is negative or not less than K.
    """
    if classes.device.type != "cpu":
        return
    columns = logits.shape[1]
    outside = classes[(classes < 0) | (classes >= columns)]
    if len(outside):
        raise ValueError(f"{name}: expected classes from 0 to {columns - 1}, the columns of logits, got {outside[0]}")


def _known_distance(distance: DistanceName) -> DistanceName:
    if distance not in get_args(DistanceName):
        raise ValueError(f"distance: expected one of {', '.join(get_args(DistanceName))}, got {distance!r}")
    return distance


def _mean_distance(embeddings: Tensor, targets: Any, distance: DistanceName) -> Tensor:
    """Mean distance ``[N]`` of embeddings ``[N, D]`` to their targets ``[N, D]`` or ``[N, T, D]``."""
    targets = _target_embeddings(targets, embeddings)
    embeddings = embeddings.unsqueeze(1)
    distances: Tensor
    if distance == "euclidean":
        distances = torch.linalg.vector_norm(embeddings - targets, dim=2)
    elif distance == "sqeuclidean":
        distances = (embeddings - targets).square().sum(dim=2)
    elif distance == "cosine":
        distances = 1 - F.cosine_similarity(embeddings, targets, dim=2)
    else:
        distances = -(embeddings * targets).sum(dim=2)
    return distances.mean(dim=1)


def _target_embeddings(targets: Any, embeddings: Tensor) -> Tensor:
    if not isinstance(targets, Tensor):
        raise TypeError(f"targets: expected embeddings [N, T, D], got {type(targets).__name__}")
    count, width = embeddings.shape
    if targets.dim() not in (2, 3) or targets.shape[0] != count or targets.shape[-1] != width:
        raise ValueError(f"targets: expected embeddings [{count}, T, {width}], got {list(targets.shape)}")
    if targets.dim() == 3 and targets.shape[1] == 0:
        raise ValueError(f"targets: expected one target at least, got {list(targets.shape)}")
    return targets.reshape(count, -1, width).to(embeddings.dtype)
