"""The proxy-anchor loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from mdprop_ext.losses._batch import check_above_zero, log_one_plus_sum_exp
from mdprop_ext.losses.class_loss import ClassLoss


class ProxyAnchorLoss(ClassLoss):
    r"""Proxy-anchor loss: each class proxy is an anchor that pulls its class and pushes the others.

    With the cosine similarity :math:`s_{ik}` of embedding i and the proxy of class k out of K classes, of which
    :math:`K^+` are in the batch

    .. math::
        \ell = \frac{1}{K^+} \sum_k \log \Big(1 + \sum_{i: y_i = k} e^{-\alpha (s_{ik} - \text{margin})}\Big)
             + \frac{1}{K} \sum_k \log \Big(1 + \sum_{i: y_i \ne k} e^{\alpha (s_{ik} + \text{margin})}\Big).

    Args:
        classes: K, at least 2.
        embedding_dim: Numbers in an embedding, at least 1.
        margin: Similarity beyond which samples weigh little.
        alpha: Sharpness, above 0.

    Attributes:
        proxies: Parameter ``[classes, embedding_dim]``. Its learning rate is usually 100 times that of the network.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> loss = ProxyAnchorLoss(classes=4, embedding_dim=16)
        >>> loss(torch.randn(8, 16), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])).backward()

    Reference:
        S. Kim, D. Kim, M. Cho, S. Kwak: Proxy Anchor Loss for Deep Metric Learning. CVPR 2020, arXiv:2003.13911.
    """

    def __init__(self, classes: int, embedding_dim: int, *, margin: float = 0.1, alpha: float = 32.0) -> None:
        super().__init__(classes, embedding_dim)
        check_above_zero("alpha", alpha)
        self.margin = margin
        self.alpha = alpha

    def extra_repr(self) -> str:
        """Returns the options for ``print(module)``."""
        return f"{super().extra_repr()}, margin={self.margin}, alpha={self.alpha}"

    def _compute(self, cosines: Tensor, labels: Tensor) -> Tensor:
        own = F.one_hot(labels, cosines.shape[1]).T.bool()
        by_proxy = cosines.T
        pull = log_one_plus_sum_exp(-self.alpha * (by_proxy - self.margin), own)
        push = log_one_plus_sum_exp(self.alpha * (by_proxy + self.margin), ~own)
        return pull.sum() / own.any(1).sum() + push.mean()
