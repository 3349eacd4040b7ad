"""The losses that ``criterion`` of :class:`TrainConfig` names."""

from __future__ import annotations

from mdprop_ext.losses import loss_by_name
from mdprop_ext.recipes.base import Criterion
from mdprop_ext.recipes.user_objects import call_factory, is_user_object


def build_criterion(name: str, *, classes: int, embedding_dim: int) -> Criterion:
    """Builds a loss of embeddings.

    Args:
        name: Of a loss in :mod:`mdprop_ext.losses`, or ``"module:factory"`` for
            ``factory(classes=..., embedding_dim=...)``.
        classes: Classes to train on.
        embedding_dim: Numbers in an embedding.

    Returns:
        ``criterion(embeddings [N, D], labels [N]) -> scalar``.

    Raises:
        ValueError: If there is no such loss.
    """
    if not is_user_object(name):
        return loss_by_name(name, classes=classes, embedding_dim=embedding_dim)
    criterion = call_factory("criterion", name, {"classes": classes, "embedding_dim": embedding_dim})
    if not callable(criterion):
        raise ValueError(f"criterion: expected {name!r} to return a callable, got {type(criterion).__name__}")
    return criterion  # type: ignore[no-any-return]
