"""The ArcFace loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mdprop_ext.losses._batch import check_above_zero
from mdprop_ext.losses.class_loss import ClassLoss


class ArcFaceLoss(ClassLoss):
    r"""Additive angular margin loss: a softmax over classes in which the own class has to win by an angle.

    With angles :math:`\theta_{ik}` between embedding i and the proxy of class k, m the margin and y the own class

    .. math::
        \ell_i = -\log \text{softmax}_y (s \, z_i), \qquad
        z_{ik} = \begin{cases} \cos(\theta_{ik} + m) & k = y \\ \cos \theta_{ik} & \text{else} \end{cases}

    and the loss is the mean. Where :math:`\theta_{iy} > \pi - m`, beyond which the cosine would rise again, the own
    class has :math:`\cos \theta_{iy} - m \sin m`.

    Args:
        classes: Number of classes, at least 2.
        embedding_dim: Numbers in an embedding, at least 1.
        margin: m in radians, from 0 to pi.
        scale: s, above 0.

    Attributes:
        proxies: Parameter ``[classes, embedding_dim]``, the class centres.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> loss = ArcFaceLoss(classes=4, embedding_dim=16)
        >>> loss(torch.randn(8, 16), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])).backward()

    Reference:
        J. Deng, J. Guo, N. Xue, S. Zafeiriou: ArcFace: Additive Angular Margin Loss for Deep Face Recognition.
        CVPR 2019, arXiv:1801.07698.
    """

    def __init__(self, classes: int, embedding_dim: int, *, margin: float = 0.5, scale: float = 64.0) -> None:
        super().__init__(classes, embedding_dim)
        if not 0 <= margin <= math.pi:
            raise ValueError(f"margin: expected radians from 0 to pi, got {margin}")
        check_above_zero("scale", scale)
        self.margin = margin
        self.scale = scale

    def extra_repr(self) -> str:
        """Returns the options for ``print(module)``."""
        return f"{super().extra_repr()}, margin={self.margin}, scale={self.scale}"

    def _compute(self, cosines: Tensor, labels: Tensor) -> Tensor:
        own = labels[:, None]
        cosine = cosines.gather(1, own)
        # The root has no finite slope at 0, and the slope of acos none at 1: hence the clamp, and no angles.
        sine = (1 - cosine.square()).clamp_min(torch.finfo(cosine.dtype).tiny).sqrt()
        with_margin = torch.where(
            cosine >= -math.cos(self.margin),
            cosine * math.cos(self.margin) - sine * math.sin(self.margin),
            cosine - self.margin * math.sin(self.margin),
        )
        return F.cross_entropy(self.scale * cosines.scatter(1, own, with_margin), labels)
