"""The multi-similarity loss of metric learning."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MultiSimilarityLoss(nn.Module):
    r"""Multi-similarity loss with its pair mining, over all anchors at once.

    Let :math:`s_{ij}` be the cosine similarity of samples i and j. Anchor i keeps its hard pairs: the negatives with
    :math:`s_{ij} + \text{margin} > \min_{p} s_{ip}` over its positives p, and the positives with
    :math:`s_{ij} - \text{margin} < \max_{n} s_{in}` over its negatives n. With kept positives :math:`P_i` and kept
    negatives :math:`N_i`

    .. math::
        \ell_i = \frac{1}{\alpha} \log \Big(1 + \sum_{j \in P_i} e^{-\alpha (s_{ij} - \text{base})}\Big)
               + \frac{1}{\beta} \log \Big(1 + \sum_{j \in N_i} e^{\beta (s_{ij} - \text{base})}\Big).

    Anchors without a kept positive or negative are left out; the loss is the mean over the others, and a zero with
    zero gradients if there are none. Embeddings need not be normalised. Computation is in ``float32``, also under
    autocast, or in ``float64`` for ``float64`` embeddings; a NaN embedding gives a NaN loss.

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
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not value > 0:
                raise ValueError(f"{name}: expected a number above 0, got {value}")
        self.alpha = alpha
        self.beta = beta
        self.base = base
        self.margin = margin

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Computes the loss of a batch.

        Args:
            embeddings: Floating-point tensor ``[N, D]``, N at least 1.
            labels: Integer tensor ``[N]`` on the same device.

        Returns:
            The loss, a tensor without dimensions.

        Raises:
            TypeError: If ``embeddings`` are not floating-point or ``labels`` are.
            ValueError: If the shapes are not as above.
        """
        _check(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            vectors = F.normalize(embeddings if embeddings.dtype == torch.float64 else embeddings.float())
            similarity = vectors @ vectors.T
            kept_positives, kept_negatives = self._mine(similarity.detach(), labels)
            centred = similarity - self.base
            positive_term = _log_one_plus_sum_exp(-self.alpha * centred, kept_positives) / self.alpha
            negative_term = _log_one_plus_sum_exp(self.beta * centred, kept_negatives) / self.beta
            kept_anchors = kept_positives.any(1) & kept_negatives.any(1)
            total = (positive_term + negative_term).masked_fill(~kept_anchors, 0).sum()
            return total / kept_anchors.sum().clamp(min=1)

    def extra_repr(self) -> str:
        """Returns the options for ``print(module)``."""
        return f"alpha={self.alpha}, beta={self.beta}, base={self.base}, margin={self.margin}"

    def _mine(self, similarity: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the masks ``[N, N]`` of the positives and negatives that each anchor keeps."""
        negatives = labels[:, None] != labels
        positives = negatives.logical_not().fill_diagonal_(False)
        hardest_positive = similarity.masked_fill(~positives, torch.inf).amin(1, keepdim=True)
        hardest_negative = similarity.masked_fill(~negatives, -torch.inf).amax(1, keepdim=True)
        # Written as negations so that NaN is kept and shows in the loss instead of dropping its anchor.
        kept_negatives = negatives & ~(similarity + self.margin <= hardest_positive)
        kept_positives = positives & ~(similarity - self.margin >= hardest_negative)
        return kept_positives, kept_negatives


def _log_one_plus_sum_exp(exponents: Tensor, mask: Tensor) -> Tensor:
    """Computes log(1 + sum of exp(exponents) where mask) along the rows of ``[N, N]`` without overflow."""
    padded = F.pad(exponents.masked_fill(~mask, -torch.inf), (1, 0))
    return padded.logsumexp(1)


def _check(embeddings: Tensor, labels: Tensor) -> None:
    if not embeddings.is_floating_point():
        raise TypeError(f"embeddings: expected a floating-point tensor, got {embeddings.dtype}")
    if labels.is_floating_point():
        raise TypeError(f"labels: expected an integer tensor, got {labels.dtype}")
    if embeddings.ndim != 2 or len(embeddings) == 0:
        raise ValueError(f"embeddings: expected shape [N, D] with N of at least 1, got {list(embeddings.shape)}")
    if labels.shape != embeddings.shape[:1]:
        raise ValueError(f"labels: expected shape [{len(embeddings)}], got {list(labels.shape)}")
