"""Losses and miners inside other losses, from wherever they come."""

from __future__ import annotations

from torch import Tensor, nn

from mdprop_ext.losses.class_loss import ClassLoss
from mdprop_ext.losses.indices import IndicesTuple

#: What a loss of pytorch-metric-learning lacks that refuses an argument.
_REFUSED = (("indices_tuple is not supported", "pairs"), ("ref_emb is not supported", "references"))


def check_callable(name: str, value: object) -> None:
    """Raises unless ``value`` can be called as it is, which a class of losses or miners cannot."""
    if isinstance(value, type):
        raise TypeError(f"{name}: expected an instance such as {value.__name__}(), got the class {value.__name__}")
    if not callable(value):
        raise TypeError(f"{name}: expected a module or function, got {type(value).__name__}")


def check_takes_pairs(loss: object) -> None:
    """Raises unless ``loss`` may take pairs, which one that compares embeddings with proxies alone does not."""
    check_callable("loss", loss)
    if isinstance(loss, ClassLoss):
        raise TypeError(f"loss: expected a loss of pairs or triplets, got {type(loss).__name__}")


def loss_of_pairs(
    wrapper: nn.Module,
    loss: nn.Module,
    embeddings: Tensor,
    labels: Tensor,
    indices_tuple: IndicesTuple | None,
    *references: Tensor,
) -> Tensor:
    """Calls a loss with pairs or triplets.

    Args:
        wrapper: The module that calls it, for messages.
        loss: The loss.
        embeddings: ``[N, D]``.
        labels: ``[N]``.
        indices_tuple: The pairs, or None.
        references: Embeddings ``[M, D]`` and labels ``[M]`` to compare with; none for the batch itself.

    Returns:
        The loss, a tensor without dimensions.

    Raises:
        ValueError: If the loss is one of pytorch-metric-learning that refuses pairs or references, or raises it anyway.
    """
    try:
        value: Tensor = loss(embeddings, labels, indices_tuple, *references)
    except ValueError as error:
        # Only a call tells, and they say no more than the name of the argument.
        for text, lacking in _REFUSED:
            if str(error).startswith(text):
                raise ValueError(
                    f"loss: {type(loss).__name__} takes no {lacking}, which {type(wrapper).__name__} gives it"
                ) from None
        raise
    return value
