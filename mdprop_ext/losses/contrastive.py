"""The contrastive loss of metric learning."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from mdprop_ext.losses._batch import PairBatch, distances, mean_of_positive
from mdprop_ext.losses.indices import IndicesTuple, all_pairs, as_pairs
from mdprop_ext.losses.pair_loss import PairLoss


class ContrastiveLoss(PairLoss):
    r"""Contrastive loss: positives shall be near, negatives farther away than a margin.

    With Euclidean distances d, over positive pairs ij and negative pairs ik

    .. math::
        \ell = \text{mean}_{ij} \max(0, d_{ij} - \text{positive\_margin})
             + \text{mean}_{ik} \max(0, \text{negative\_margin} - d_{ik}),

    each mean over its terms above 0, and a zero with zero gradients if there are none. All pairs of the batch are
    taken, or those given as ``indices_tuple``. Equal embeddings have a zero gradient.

    Args:
        positive_margin: Distance up to which positives cost nothing.
        negative_margin: Distance from which on negatives cost nothing; unit vectors are at most 2 apart.
        normalize: Whether embeddings are scaled to unit length first.

    Example:
        >>> loss = ContrastiveLoss(negative_margin=0.5)
        >>> loss(torch.randn(8, 16), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]))

    Reference:
        R. Hadsell, S. Chopra, Y. LeCun: Dimensionality Reduction by Learning an Invariant Mapping. CVPR 2006. Here with
        plain distances instead of squared ones.
    """

    def __init__(self, *, positive_margin: float = 0.0, negative_margin: float = 1.0, normalize: bool = True) -> None:
        super().__init__()
        self.positive_margin = positive_margin
        self.negative_margin = negative_margin
        self.normalize = normalize

    def extra_repr(self) -> str:
        """Returns the options for ``print(module)``."""
        margins = f"positive_margin={self.positive_margin}, negative_margin={self.negative_margin}"
        return f"{margins}, normalize={self.normalize}"

    def _compute(self, batch: PairBatch, indices_tuple: IndicesTuple | None) -> Tensor:
        if indices_tuple is None:
            indices_tuple = all_pairs(batch.labels, None if batch.within else batch.reference_labels)
        anchors, positives, other_anchors, negatives = as_pairs(indices_tuple)
        matrix = distances(batch, normalize=self.normalize)
        too_far = F.relu(matrix[anchors, positives] - self.positive_margin)
        too_near = F.relu(self.negative_margin - matrix[other_anchors, negatives])
        return mean_of_positive(too_far) + mean_of_positive(too_near)
