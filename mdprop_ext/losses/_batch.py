"""What the losses and miners share: checked batches in full precision, and the pairs in them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mdprop_ext._arguments import check_tensor


class PairBatch(NamedTuple):
    """Anchors, and the references that they are compared with."""

    embeddings: Tensor
    """``[N, D]``, fp32 or fp64."""
    labels: Tensor
    """``[N]``."""
    references: Tensor
    """``[M, D]`` of the same dtype; the embeddings themselves unless a memory takes their place."""
    reference_labels: Tensor
    """``[M]``."""
    within: bool
    """Whether the references are the embeddings, so that an anchor makes no pair with itself."""


def pair_batch(embeddings: Tensor, labels: Tensor, ref_emb: Tensor | None, ref_labels: Tensor | None) -> PairBatch:
    """Checks a batch and brings it to full precision.

    Args:
        embeddings: Floating-point tensor ``[N, D]``, N at least 1.
        labels: Integer tensor ``[N]``.
        ref_emb: Floating-point tensor ``[M, D]``; None means the embeddings.
        ref_labels: Integer tensor ``[M]``, given together with ``ref_emb``.

    Returns:
        The batch; fp64 if either side is, else fp32.

    Raises:
        TypeError: If embeddings are not floating-point or labels not integers.
        ValueError: If shapes are not as above, devices differ, or one of ``ref_emb`` and ``ref_labels`` is missing.
    """
    check_batch(embeddings, labels)
    if (ref_emb is None) != (ref_labels is None):
        missing = "ref_emb" if ref_emb is None else "ref_labels"
        raise ValueError(f"{missing}: expected together with its counterpart, got None")
    if ref_emb is None or ref_labels is None or (ref_emb is embeddings and ref_labels is labels):
        vectors = in_full_precision(embeddings)
        return PairBatch(vectors, labels, vectors, labels, True)
    check_batch(ref_emb, ref_labels, names=("ref_emb", "ref_labels"))
    if ref_emb.shape[1] != embeddings.shape[1]:
        raise ValueError(f"ref_emb: expected shape [M, {embeddings.shape[1]}], got {list(ref_emb.shape)}")
    dtype = full_precision(torch.promote_types(embeddings.dtype, ref_emb.dtype))
    return PairBatch(embeddings.to(dtype), labels, ref_emb.to(dtype), ref_labels, False)


def check_batch(embeddings: Tensor, labels: Tensor, *, names: tuple[str, str] = ("embeddings", "labels")) -> None:
    """Raises unless embeddings are floating-point ``[N, D]``, N at least 1, and labels integers ``[N]`` beside them."""
    vectors, classes = names
    for name, value in ((vectors, embeddings), (classes, labels)):
        check_tensor(name, value)
    if not embeddings.is_floating_point():
        raise TypeError(f"{vectors}: expected a floating-point tensor, got {embeddings.dtype}")
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"{classes}: expected an integer tensor, got {labels.dtype}")
    if embeddings.ndim != 2 or len(embeddings) == 0:
        raise ValueError(f"{vectors}: expected shape [N, D] with N of at least 1, got {list(embeddings.shape)}")
    if labels.shape != embeddings.shape[:1]:
        raise ValueError(f"{classes}: expected shape [{len(embeddings)}], got {list(labels.shape)}")
    if labels.device != embeddings.device:
        raise ValueError(f"{classes}: expected the device of {vectors}, {embeddings.device}, got {labels.device}")


def full_precision(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype that a loss computes in: fp64 for fp64, else fp32."""
    return dtype if dtype == torch.float64 else torch.float32


def in_full_precision(tensor: Tensor) -> Tensor:
    """Casts half types to fp32."""
    return tensor.to(full_precision(tensor.dtype))


def pair_masks(labels: Tensor, ref_labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Tells positive from negative pairs.

    Args:
        labels: Classes ``[N]`` of the anchors.
        ref_labels: Classes ``[M]`` of the references; None means the anchors themselves, who are no own positives.

    Returns:
        Bool masks ``[N, M]`` of the positives and of the negatives.

    Raises:
        TypeError: If labels are no tensor.
    """
    check_tensor("labels", labels)
    if ref_labels is not None:
        check_tensor("ref_labels", ref_labels)
    negatives = labels[:, None] != (labels if ref_labels is None else ref_labels)
    positives = ~negatives
    return (positives.fill_diagonal_(False) if ref_labels is None else positives), negatives


def masks_of(batch: PairBatch) -> tuple[Tensor, Tensor]:
    """Tells positive from negative pairs of a batch; see :func:`pair_masks`."""
    return pair_masks(batch.labels, None if batch.within else batch.reference_labels)


def distances(batch: PairBatch, *, normalize: bool) -> Tensor:
    """Computes Euclidean distances ``[N, M]``, of unit vectors if ``normalize``; their gradient at 0 is 0."""
    anchors, references = batch.embeddings, batch.references
    if normalize:
        anchors, references = F.normalize(anchors), F.normalize(references)
    # Through a matrix product small distances would drown in rounding errors, and equal points lie apart.
    return torch.cdist(anchors, references, compute_mode="donot_use_mm_for_euclid_dist")


def similarities(batch: PairBatch) -> Tensor:
    """Computes cosine similarities ``[N, M]``."""
    anchors = F.normalize(batch.embeddings)
    return anchors @ (anchors if batch.within else F.normalize(batch.references)).T


def check_above_zero(name: str, value: float) -> None:
    """Raises unless ``value`` is above 0."""
    if not value > 0:
        raise ValueError(f"{name}: expected a number above 0, got {value}")


def mean_of_positive(values: Tensor) -> Tensor:
    """Computes the mean of the values above 0, or of NaN ones; a zero with zero gradients if there are none."""
    # As a negation, so that NaN is kept and shows in the loss.
    counted = ~(values <= 0)
    return values.where(counted, 0).sum() / counted.sum().clamp(min=1)


def log_one_plus_sum_exp(exponents: Tensor, mask: Tensor) -> Tensor:
    """Computes log(1 + sum of exp(exponents) where mask) along the rows of ``[N, M]`` without overflow."""
    padded = F.pad(exponents.masked_fill(~mask, -torch.inf), (1, 0))
    return padded.logsumexp(1)
