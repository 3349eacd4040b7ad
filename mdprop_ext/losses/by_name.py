"""Losses by name, with their default options."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from mdprop_ext._words import did_you_mean
from mdprop_ext.losses.arcface import ArcFaceLoss
from mdprop_ext.losses.contrastive import ContrastiveLoss
from mdprop_ext.losses.mined import MinedLoss
from mdprop_ext.losses.miners import BatchHardMiner, TripletMarginMiner
from mdprop_ext.losses.multi_similarity import MultiSimilarityLoss
from mdprop_ext.losses.proxy_anchor import ProxyAnchorLoss
from mdprop_ext.losses.triplet_margin import TripletMarginLoss

#: What :func:`loss_by_name` knows.
LOSS_NAMES = (
    "multi_similarity",
    "triplet",
    "triplet_batch_hard",
    "triplet_semihard",
    "contrastive",
    "arcface",
    "proxy_anchor",
)
# The usual margin of mined triplets of unit vectors.
_MARGIN = 0.2


def loss_by_name(name: str, *, classes: int, embedding_dim: int) -> nn.Module:
    """Builds a loss with default options.

    Args:
        name: One of :data:`LOSS_NAMES`.
        classes: Number of training classes, whose labels are 0 to ``classes - 1``; used by losses with proxies.
        embedding_dim: Numbers in an embedding; used by the same.

    Returns:
        ``loss(embeddings, labels) -> scalar``. ``"arcface"`` and ``"proxy_anchor"`` have parameters to train, drawn
        from the global random state.

    Raises:
        ValueError: If the name is unknown (the message names the one that is likely meant), or a number is too small.

    Example:
        >>> loss_by_name("contrastive", classes=10, embedding_dim=64)
        ContrastiveLoss(positive_margin=0.0, negative_margin=1.0, normalize=True)
    """
    builders: dict[str, Callable[[], nn.Module]] = {
        "multi_similarity": MultiSimilarityLoss,
        "triplet": lambda: TripletMarginLoss(margin=_MARGIN),
        "triplet_batch_hard": lambda: MinedLoss(TripletMarginLoss(margin=_MARGIN), BatchHardMiner()),
        "triplet_semihard": lambda: MinedLoss(
            TripletMarginLoss(margin=_MARGIN), TripletMarginMiner(margin=_MARGIN, kind="semihard")
        ),
        "contrastive": ContrastiveLoss,
        "arcface": lambda: ArcFaceLoss(classes, embedding_dim),
        "proxy_anchor": lambda: ProxyAnchorLoss(classes, embedding_dim),
    }
    if name not in builders:
        hint = did_you_mean(name, LOSS_NAMES)
        raise ValueError(f"name: expected one of {', '.join(LOSS_NAMES)}, got {name!r}{hint}")
    return builders[name]()
