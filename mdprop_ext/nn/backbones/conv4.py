"""The four-block convolutional network of few-shot and metric learning on small images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST_IMAGE = 16  # four poolings by two leave one pixel


class Conv4(nn.Module):
    """Four blocks of convolution, batch norm, ReLU and pooling, and a linear embedding; see :func:`conv4`."""

    def __init__(self, *, in_channels: int, width: int, embedding_dim: int, normalize: bool) -> None:
        super().__init__()
        self.normalize = normalize
        self.features = nn.Sequential(
            _block(in_channels, width), _block(width, width), _block(width, width), _block(width, width)
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, embedding_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Embeds images.

        Args:
            images: ``[N, C, H, W]``, H and W at least 16.

        Returns:
            Embeddings ``[N, embedding_dim]``.

        Raises:
            ValueError: If the images are smaller than 16 pixels.
        """
        if min(images.shape[-2:]) < SMALLEST_IMAGE:
            raise ValueError(f"images must be at least {SMALLEST_IMAGE} pixels high and wide, got {list(images.shape)}")
        embeddings: Tensor = self.fc(self.avgpool(self.features(images)).flatten(1))
        return F.normalize(embeddings, dim=1) if self.normalize else embeddings


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True), nn.MaxPool2d(2))


def conv4(*, in_channels: int = 1, width: int = 64, embedding_dim: int = 64, normalize: bool = True) -> Conv4:
    """A four-block convolutional network for images of 16 pixels and more.

    Args:
        in_channels: Channels of the images.
        width: Channels of each block.
        embedding_dim: Numbers in an embedding.
        normalize: Whether embeddings have unit L2 norm.

    Returns:
        A module from ``[N, in_channels, H, W]`` to ``[N, embedding_dim]``.

    Example:
        >>> conv4()(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 64])

    Reference:
        Vinyals et al., Matching Networks for One Shot Learning, NeurIPS 2016 (https://arxiv.org/abs/1606.04080).
    """
    return Conv4(in_channels=in_channels, width=width, embedding_dim=embedding_dim, normalize=normalize)
