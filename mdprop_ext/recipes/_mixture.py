"""What recipes that train on clean and adversarial images together share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from mdprop_ext._arguments import check_choice, check_integer, check_radius
from mdprop_ext.recipes.base import Criterion

#: ``"joint"``: one loss over the union, in which pairs of all distributions meet; ``"separate"``: the mean of one loss
#: for each distribution.
LossMode = Literal["joint", "separate"]


def check_mixture(eps: float, loss: str, **counts: int) -> None:
    """Raises unless the hyper-parameters that these recipes share are in range."""
    check_radius(eps)
    check_choice("loss", loss, get_args(LossMode))
    for name, count in counts.items():
        check_integer(name, count, least=1)


def split_in_halves(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Deals the images of a batch alternately to two halves, each with images of several classes.

    They are dealt in pairs of neighbours. In a batch that lies class by class both images of a pair are mostly of one
    class, so that each half has pairs for the loss and many classes to take targets from. With so few classes that a
    half would get a single one, images are dealt one by one.

    Args:
        labels: Classes int64 ``[N]``, N of any parity.

    Returns:
        Positions of the first and the second half, which together hold each position once.
    """
    positions = torch.arange(len(labels), device=labels.device)
    for hand in (2, 1):
        in_second = positions // hand % 2 == 1
        first, second = positions[~in_second], positions[in_second]
        if _several_classes(labels[first]) and _several_classes(labels[second]):
            break
    return first, second


def mixture_loss(criterion: Criterion, embeddings: Tensor, labels: Tensor, sizes: Sequence[int], mode: str) -> Tensor:
    """Computes the loss of a batch in which several distributions follow one another.

    Args:
        criterion: The loss of embeddings.
        embeddings: ``[N, D]``.
        labels: Int64 ``[N]``.
        sizes: Samples of each distribution, N together.
        mode: A :data:`LossMode`.

    Returns:
        The loss, a scalar.
    """
    if mode == "joint":
        return criterion(embeddings, labels)
    parts = zip(torch.split(embeddings, list(sizes)), torch.split(labels, list(sizes)), strict=True)
    return torch.stack([criterion(*part) for part in parts]).mean()


def _several_classes(labels: Tensor) -> bool:
    return bool((labels != labels[:1]).any())
