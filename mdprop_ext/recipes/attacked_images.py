"""Attacked images themselves, as pixels that can be written to files."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mdprop_ext.data import ImageSet
from mdprop_ext.metrics import retrieval_metrics
from mdprop_ext.recipes.evaluation import AttackSetting, build_attack, spread_batches

# In levels of 1/255: far above the rounding of float32, far below what a level means.
_TOLERANCE = 1e-3
_EPS_TOLERANCE = 1e-9  # the radius itself is a double


def attack_images(model: nn.Module, images: ImageSet, setting: AttackSetting, *, seed: int) -> Tensor:
    """Attacks all images of a set, as :class:`RobustnessMeter` does.

    Args:
        model: The model under attack.
        images: The N images.
        setting: The attack.
        seed: Of batches, targets and random starts.

    Returns:
        The attacked images ``[N, C, H, W]``, ``float32`` in [0, 1], on the device of the images.

    Raises:
        ValueError: If the images do not suit the attack: targets need two classes.
    """
    attack = build_attack(model, setting, torch.Generator().manual_seed(seed))
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    attacked = torch.empty(images.images.shape, dtype=torch.float32, device=images.images.device)
    for positions in spread_batches(images.labels, seed):
        batch = attack(images.floats(positions).to(device), images.labels[positions].to(device))
        attacked[positions] = batch.to(attacked.device)
    return attacked


def to_pixels(attacked: Tensor, clean: Tensor, *, eps: float) -> Tensor:
    r"""Rounds attacked images to 8 bits towards the clean ones, so that they stay in the linf ball and the box.

    .. math:: p = c + \operatorname{sign}(\delta) \min(\lfloor |\delta| \rfloor, \lfloor 255 \epsilon \rfloor),
        \quad \delta = 255 x - c

    Rounding to the nearest level could leave the ball by half a level. Changes within 0.001 of a level count as that
    level, since ``float32`` seldom meets it exactly.

    Args:
        attacked: Images x ``[N, C, H, W]``, floating point in [0, 1].
        clean: The 8-bit images c that they were made of, ``uint8`` of the same shape.
        eps: Radius in pixel units of [0, 1].

    Returns:
        Pixels p, ``uint8`` ``[N, C, H, W]``.

    Raises:
        TypeError: If ``clean`` is not ``uint8``.
        ValueError: If the shapes differ.

    Example:
        >>> to_pixels(torch.tensor([[[[0.0199]]]]), torch.tensor([[[[4]]]], dtype=torch.uint8), eps=2 / 255)
        tensor([[[[5]]]], dtype=torch.uint8)
    """
    if clean.dtype != torch.uint8:
        raise TypeError(f"clean: expected dtype torch.uint8, got {clean.dtype}")
    if attacked.shape != clean.shape:
        raise ValueError(f"attacked: expected shape {list(clean.shape)}, got {list(attacked.shape)}")
    change = attacked.double() * 255 - clean
    most = math.floor(eps * 255 + _EPS_TOLERANCE)
    levels = (change.abs() + _TOLERANCE).floor().clamp(max=most) * change.sign()
    return (clean + levels).clamp(0, 255).to(torch.uint8)


def spread_positions(labels: Tensor, count: int) -> Tensor:
    """Picks images so that classes differ by one image at most, as far as they have them: the first ones of each.

    Args:
        labels: Class of each image, int64 ``[N]``.
        count: Images to pick, 0 to N.

    Returns:
        Positions int64 ``[count]``, ascending.
    """
    order = labels.argsort(stable=True)
    starts = torch.bincount(labels).cumsum(0) - torch.bincount(labels)
    turns = torch.empty_like(labels)
    turns[order] = torch.arange(len(labels), device=labels.device) - starts[labels[order]]
    return turns.argsort(stable=True)[:count].sort().values


def query_recall(queries: Tensor, positions: Tensor, gallery: Tensor, labels: Tensor) -> float:
    """R@1 of some images, or of attacked versions of them, each image's own clean version left out of the gallery.

    Args:
        queries: Embeddings ``[M, D]`` of the images at ``positions``; all tensors are on one device.
        positions: Places of the queries in the gallery, int64 ``[M]``.
        gallery: Embeddings ``[N, D]``.
        labels: Classes of the gallery, int64 ``[N]``.

    Returns:
        The share of queries whose nearest other image has their class; queries without company in their class do not
        count.

    Raises:
        ValueError: If values are not finite or no query has company in its class.
    """
    others = torch.ones(len(gallery), dtype=torch.bool, device=gallery.device)
    others[positions] = False
    order = torch.cat([positions, others.nonzero().squeeze(1)])
    found = retrieval_metrics(
        queries, labels[positions], gallery[order], labels[order], ref_includes_query=True, ks=(1,)
    )
    return found["recall_at_1"]
