"""The multi-similarity loss of metric learning."""

from __future__ import annotations

import torch
from torch import Tensor

from mdprop_ext.losses._batch import PairBatch, check_above_zero, log_one_plus_sum_exp, masks_of, similarities
from mdprop_ext.losses.indices import IndicesTuple, as_pairs
from mdprop_ext.losses.pair_loss import PairLoss


class MultiSimilarityLoss(PairLoss):
    r"""Multi-similarity loss with its pair mining, over all anchors at once.

    Let :math:`s_{ij}` be the cosine similarity of samples i and j. Anchor i keeps its hard pairs: the negatives with
    :math:`s_{ij} + \text{margin} > \min_{p} s_{ip}` over its positives p, and the positives with
    :math:`s_{ij} - \text{margin} < \max_{n} s_{in}` over its negatives n. With kept positives :math:`P_i` and kept
    negatives :math:`N_i`

    .. math::
        \ell_i = \frac{1}{\alpha} \log \Big(1 + \sum_{j \in P_i} e^{-\alpha (s_{ij} - \text{base})}\Big)
               + \frac{1}{\beta} \log \Big(1 + \sum_{j \in N_i} e^{\beta (s_{ij} - \text{base})}\Big).

    Anchors without a kept positive or negative are left out; the loss is the mean over the others, and a zero with
    zero gradients if there are none. Pairs given as ``indices_tuple`` are taken instead of mined ones, each once.
    Embeddings need not be normalised. Computation is in ``float32``, also under autocast, or in ``float64`` for
    ``float64`` embeddings; a NaN embedding gives a NaN loss.

    Args:
        alpha: Sharpness of the positive term, above 0.
        beta: Sharpness of the negative term, above 0.
        base: Similarity around which pairs are weighted.
        margin: Slack of the mining; the larger, the more pairs are kept.

    Raises:
        ValueError: If ``alpha`` or ``beta`` is not above 0.

    Example:
        >>> loss = MultiSimilarityLoss()
        >>> embeddings = torch.randn(8, 16, requires_grad=True)
        >>> loss(embeddings, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])).backward()

    Reference:
        X. Wang, X. Han, W. Huang, D. Dong, M. Scott: Multi-Similarity Loss with General Pair Weighting for Deep
        Metric Learning. CVPR 2019.
    """

    def __init__(self, alpha: float = 2.0, beta: float = 40.0, base: float = 0.5, margin: float = 0.1) -> None:
        super().__init__()
        check_above_zero("alpha", alpha)
        check_above_zero("beta", beta)
        self.alpha = alpha
        self.beta = beta
        self.base = base
        self.margin = margin

    def extra_repr(self) -> str:
        """Returns the options for ``print(module)``."""
        return f"alpha={self.alpha}, beta={self.beta}, base={self.base}, margin={self.margin}"

    def _compute(self, batch: PairBatch, indices_tuple: IndicesTuple | None) -> Tensor:
        similarity = similarities(batch)
        if indices_tuple is None:
            kept_positives, kept_negatives = hard_pairs(similarity.detach(), masks_of(batch), margin=self.margin)
        else:
            kept_positives, kept_negatives = _masks_from(as_pairs(indices_tuple), similarity)
        centred = similarity - self.base
        positive_term = log_one_plus_sum_exp(-self.alpha * centred, kept_positives) / self.alpha
        negative_term = log_one_plus_sum_exp(self.beta * centred, kept_negatives) / self.beta
        kept_anchors = kept_positives.any(1) & kept_negatives.any(1)
        total = (positive_term + negative_term).masked_fill(~kept_anchors, 0).sum()
        return total / kept_anchors.sum().clamp(min=1)


def hard_pairs(similarity: Tensor, masks: tuple[Tensor, Tensor], *, margin: float) -> tuple[Tensor, Tensor]:
    """Mines the pairs that are harder than the hardest ones of the other kind, up to a margin.

    Args:
        similarity: Cosine similarities ``[N, M]`` of anchors and references.
        masks: Positives and negatives, bool ``[N, M]`` each.
        margin: Slack; the larger, the more pairs are kept.

    Returns:
        Masks ``[N, M]`` of the positives and negatives that each anchor keeps.
    """
    positives, negatives = masks
    hardest_positive = similarity.masked_fill(~positives, torch.inf).amin(1, keepdim=True)
    hardest_negative = similarity.masked_fill(~negatives, -torch.inf).amax(1, keepdim=True)
    # Written as negations so that NaN is kept and shows in the loss instead of dropping its anchor.
    kept_negatives = negatives & ~(similarity + margin <= hardest_positive)
    kept_positives = positives & ~(similarity - margin >= hardest_negative)
    return kept_positives, kept_negatives


def _masks_from(pairs: IndicesTuple, similarity: Tensor) -> tuple[Tensor, Tensor]:
    """Turns index pairs into masks of the shape of ``similarity``."""
    anchors, positives, other_anchors, negatives = pairs
    positive_mask = torch.zeros_like(similarity, dtype=torch.bool)
    negative_mask = positive_mask.clone()
    positive_mask[anchors, positives] = True
    negative_mask[other_anchors, negatives] = True
    return positive_mask, negative_mask
