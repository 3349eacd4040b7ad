"""The triplet loss of metric learning."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mdprop_ext.losses._batch import PairBatch, distances, mean_of_positive
from mdprop_ext.losses.indices import IndicesTuple, all_triplets, as_triplets
from mdprop_ext.losses.pair_loss import PairLoss


class TripletMarginLoss(PairLoss):
    r"""Triplet loss: an anchor shall be nearer to its positive than to its negative, by a margin.

    With Euclidean distances d of anchor a, positive p and negative n

    .. math::
        \ell_{apn} = \max(0, d_{ap} - d_{an} + \text{margin})

    and the loss is the mean over the triplets above 0, a zero with zero gradients if there are none. All triplets of
    the batch are taken, or those given as ``indices_tuple``: :class:`~mdprop_ext.losses.MinedLoss` with a miner makes
    it the batch-hard or semi-hard triplet loss. Equal embeddings have a zero gradient.

    Args:
        margin: By how much the negative shall be farther away.
        swap: Whether the distance of positive and negative takes the place of :math:`d_{an}` where it is smaller.
        smooth: Whether :math:`\log(1 + e^x)` takes the place of :math:`\max(0, x)`.
        normalize: Whether embeddings are scaled to unit length first.

    Example:
        >>> loss = MinedLoss(TripletMarginLoss(margin=0.2), TripletMarginMiner(margin=0.2, kind="semihard"))
        >>> loss(torch.randn(8, 16), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]))

    Reference:
        F. Schroff, D. Kalenichenko, J. Philbin: FaceNet: A Unified Embedding for Face Recognition and Clustering.
        CVPR 2015, arXiv:1503.03832.
    """

    def __init__(
        self, *, margin: float = 0.05, swap: bool = False, smooth: bool = False, normalize: bool = True
    ) -> None:
        super().__init__()
        self.margin = margin
        self.swap = swap
        self.smooth = smooth
        self.normalize = normalize

    def extra_repr(self) -> str:
        """Returns the options for ``print(module)``."""
        return f"margin={self.margin}, swap={self.swap}, smooth={self.smooth}, normalize={self.normalize}"

    def _compute(self, batch: PairBatch, indices_tuple: IndicesTuple | None) -> Tensor:
        if indices_tuple is None:
            indices_tuple = all_triplets(batch.labels, None if batch.within else batch.reference_labels)
        anchors, positives, negatives = as_triplets(indices_tuple)
        matrix = distances(batch, normalize=self.normalize)
        to_negative = matrix[anchors, negatives]
        if self.swap:
            to_negative = torch.minimum(to_negative, self._between_references(batch, matrix)[positives, negatives])
        excess = matrix[anchors, positives] - to_negative + self.margin
        return mean_of_positive(F.softplus(excess) if self.smooth else F.relu(excess))

    def _between_references(self, batch: PairBatch, matrix: Tensor) -> Tensor:
        """Computes distances ``[M, M]`` of the references."""
        if batch.within:
            return matrix
        return distances(batch._replace(embeddings=batch.references), normalize=self.normalize)
