"""Miners: they choose the pairs or triplets of a batch that a loss is computed from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor

from mdprop_ext.losses._batch import PairBatch, distances, masks_of, pair_batch, similarities
from mdprop_ext.losses.indices import IndicesTuple, all_triplets
from mdprop_ext.losses.multi_similarity import hard_pairs

#: ``"all"`` triplets that violate the margin, the ``"hard"`` ones of them, whose negative is nearer than the positive,
#: or the ``"semihard"`` ones, whose negative is farther away.
TripletKind = Literal["all", "hard", "semihard"]


class Miner(ABC):
    """Base of the miners, called like those of pytorch-metric-learning.

    A subclass defines ``_mine``. Mining is in fp32, also under autocast, or in fp64, and gives no gradient.
    """

    @torch.no_grad()
    def __call__(
        self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor | None = None, ref_labels: Tensor | None = None
    ) -> IndicesTuple:
        """Chooses pairs or triplets.

        Args:
            embeddings: Floating-point tensor ``[N, D]`` of the anchors, N at least 1.
            labels: Integer tensor ``[N]``.
            ref_emb: Floating-point tensor ``[M, D]`` to take positives and negatives from; None means the anchors.
            ref_labels: Integer tensor ``[M]``, given together with ``ref_emb``.

        Returns:
            Three int64 tensors of triplets or four of pairs.

        Raises:
            TypeError: If embeddings are not floating-point or labels are.
            ValueError: If shapes are not as above.
        """
        batch = pair_batch(embeddings, labels, ref_emb, ref_labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            return self._mine(batch)

    @abstractmethod
    def _mine(self, batch: PairBatch) -> IndicesTuple:
        """Chooses pairs or triplets of a batch in full precision."""


class BatchHardMiner(Miner):
    """Chooses one triplet an anchor: its farthest positive and its nearest negative.

    Anchors without a positive or a negative have none; of equal distances the first counts.

    Args:
        normalize: Whether embeddings are scaled to unit length first.

    Example:
        >>> BatchHardMiner()(torch.eye(3), torch.tensor([0, 0, 1]))
        (tensor([0, 1]), tensor([1, 0]), tensor([2, 2]))

    Reference:
        A. Hermans, L. Beyer, B. Leibe: In Defense of the Triplet Loss for Person Re-Identification, arXiv:1703.07737.
    """

    def __init__(self, *, normalize: bool = True) -> None:
        self.normalize = normalize

    def __repr__(self) -> str:
        return f"BatchHardMiner(normalize={self.normalize})"

    def _mine(self, batch: PairBatch) -> IndicesTuple:
        positives, negatives = masks_of(batch)
        matrix = distances(batch, normalize=self.normalize)
        (anchors,) = torch.nonzero(positives.any(1) & negatives.any(1), as_tuple=True)
        farthest = matrix.masked_fill(~positives, -torch.inf).argmax(1)
        nearest = matrix.masked_fill(~negatives, torch.inf).argmin(1)
        return anchors, farthest[anchors], nearest[anchors]


class TripletMarginMiner(Miner):
    """Chooses triplets by how much farther the negative is away than the positive.

    With the gap d(anchor, negative) - d(anchor, positive): ``"all"`` keeps gaps up to ``margin``, ``"hard"`` those up
    to 0 as well, ``"semihard"`` those above 0 and up to ``margin``.

    Args:
        margin: The largest gap kept.
        kind: A :data:`TripletKind`.
        normalize: Whether embeddings are scaled to unit length first.

    Raises:
        ValueError: If ``kind`` is unknown.

    Example:
        >>> TripletMarginMiner(margin=0.2, kind="semihard")(torch.randn(8, 16), torch.arange(8) // 2)

    Reference:
        F. Schroff, D. Kalenichenko, J. Philbin: FaceNet: A Unified Embedding for Face Recognition and Clustering.
        CVPR 2015, arXiv:1503.03832.
    """

    def __init__(self, *, margin: float = 0.2, kind: TripletKind = "all", normalize: bool = True) -> None:
        if kind not in get_args(TripletKind):
            raise ValueError(f"kind: expected one of {', '.join(get_args(TripletKind))}, got {kind!r}")
        self.margin = margin
        self.kind = kind
        self.normalize = normalize

    def __repr__(self) -> str:
        return f"TripletMarginMiner(margin={self.margin}, kind={self.kind!r}, normalize={self.normalize})"

    def _mine(self, batch: PairBatch) -> IndicesTuple:
        triplets = all_triplets(batch.labels, None if batch.within else batch.reference_labels)
        anchors, positives, negatives = triplets
        matrix = distances(batch, normalize=self.normalize)
        gap = matrix[anchors, negatives] - matrix[anchors, positives]
        # Written as negations so that NaN is kept and shows in the loss instead of dropping its triplets.
        kept = ~(gap > self.margin)
        if self.kind == "hard":
            kept &= ~(gap > 0)
        elif self.kind == "semihard":
            kept &= ~(gap <= 0)
        return tuple(index[kept] for index in triplets)


class MultiSimilarityMiner(Miner):
    """Chooses the pairs that :class:`~mdprop_ext.losses.MultiSimilarityLoss` mines by itself.

    A negative is kept if it is more similar than the least similar positive of its anchor, a positive if it is less
    similar than the most similar negative, both up to ``margin``. For other losses and for memories.

    Args:
        margin: Slack; the larger, the more pairs are kept.

    Example:
        >>> memory = CrossBatchMemory(MultiSimilarityLoss(), 1024, 64, miner=MultiSimilarityMiner())

    Reference:
        X. Wang, X. Han, W. Huang, D. Dong, M. Scott: Multi-Similarity Loss with General Pair Weighting for Deep
        Metric Learning. CVPR 2019.
    """

    def __init__(self, *, margin: float = 0.1) -> None:
        self.margin = margin

    def __repr__(self) -> str:
        return f"MultiSimilarityMiner(margin={self.margin})"

    def _mine(self, batch: PairBatch) -> IndicesTuple:
        positives, negatives = hard_pairs(similarities(batch), masks_of(batch), margin=self.margin)
        return (*positives.nonzero(as_tuple=True), *negatives.nonzero(as_tuple=True))
