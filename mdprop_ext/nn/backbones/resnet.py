"""Residual networks with an embedding head, whose parameters have torchvision's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

Stem = Literal["cifar", "imagenet"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: the block of ResNet-18."""

    expansion: ClassVar[int] = 1
    norm_activations: ClassVar[tuple[tuple[str, str], ...]] = (("bn1", "act1"),)

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels, channels, kernel_size=3, stride=stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = _convolution(channels, channels, kernel_size=3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels * self.expansion, stride)
        self.act2 = nn.ReLU(inplace=True)

    def forward(self, input: Tensor) -> Tensor:
        """Maps ``[N, C_in, H, W]`` to ``[N, C_out, H / stride, W / stride]``."""
        shortcut = input if self.downsample is None else self.downsample(input)
        output = self.act1(self.bn1(self.conv1(input)))
        output = self.bn2(self.conv2(output))
        activated: Tensor = self.act2(output + shortcut)
        return activated


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut, the stride in the middle: the block of ResNet-50."""

    expansion: ClassVar[int] = 4
    norm_activations: ClassVar[tuple[tuple[str, str], ...]] = (("bn1", "act1"), ("bn2", "act2"))

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = _convolution(in_channels, channels, kernel_size=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = _convolution(channels, channels, kernel_size=3, stride=stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = nn.ReLU(inplace=True)
        self.conv3 = _convolution(channels, out_channels, kernel_size=1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)
        self.act3 = nn.ReLU(inplace=True)

    def forward(self, input: Tensor) -> Tensor:
        """Maps ``[N, C_in, H, W]`` to ``[N, C_out, H / stride, W / stride]``."""
        shortcut = input if self.downsample is None else self.downsample(input)
        output = self.act1(self.bn1(self.conv1(input)))
        output = self.act2(self.bn2(self.conv2(output)))
        output = self.bn3(self.conv3(output))
        activated: Tensor = self.act3(output + shortcut)
        return activated


class ResNet(nn.Module):
    """A residual network; see :func:`resnet18` and :func:`resnet50`."""

    norm_activations: ClassVar[tuple[tuple[str, str], ...]] = (("bn1", "act1"),)

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        *,
        in_channels: int,
        embedding_dim: int | None,
        num_classes: int | None,
        stem: Stem,
        normalize: bool,
    ) -> None:
        super().__init__()
        if stem not in ("cifar", "imagenet"):
            raise ValueError(f"stem must be 'cifar' or 'imagenet', got {stem!r}")
        if embedding_dim is not None and num_classes is not None:
            raise ValueError("the network has one head: for num_classes, set embedding_dim=None")
        small_images = stem == "cifar"
        kernel_size, stride = (3, 1) if small_images else (7, 2)
        self.conv1 = _convolution(in_channels, 64, kernel_size=kernel_size, stride=stride)
        self.bn1 = nn.BatchNorm2d(64)
        self.act1 = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small_images else nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _stage(block, 64, 64, depth=depths[0], stride=1)
        self.layer2 = _stage(block, 64 * block.expansion, 128, depth=depths[1], stride=2)
        self.layer3 = _stage(block, 128 * block.expansion, 256, depth=depths[2], stride=2)
        self.layer4 = _stage(block, 256 * block.expansion, 512, depth=depths[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        out_features = embedding_dim if num_classes is None else num_classes
        self.fc = nn.Identity() if out_features is None else nn.Linear(512 * block.expansion, out_features)
        self.normalize = normalize and num_classes is None

    def forward(self, images: Tensor) -> Tensor:
        """Maps images ``[N, C, H, W]`` to embeddings, features or logits ``[N, D]``."""
        output = self.maxpool(self.act1(self.bn1(self.conv1(images))))
        output = self.layer4(self.layer3(self.layer2(self.layer1(output))))
        embeddings: Tensor = self.fc(self.avgpool(output).flatten(1))
        return F.normalize(embeddings, dim=1) if self.normalize else embeddings


def _convolution(in_channels: int, out_channels: int, *, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel_size=kernel_size, stride=stride, padding=kernel_size // 2, bias=False
    )
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        _convolution(in_channels, out_channels, kernel_size=1, stride=stride), nn.BatchNorm2d(out_channels)
    )


def _stage(
    block: type[BasicBlock] | type[Bottleneck], in_channels: int, channels: int, *, depth: int, stride: int
) -> nn.Sequential:
    first = block(in_channels, channels, stride)
    return nn.Sequential(first, *(block(channels * block.expansion, channels, 1) for _ in range(depth - 1)))


def resnet18(
    *,
    in_channels: int = 3,
    embedding_dim: int | None = 128,
    num_classes: int | None = None,
    stem: Stem = "cifar",
    normalize: bool = True,
) -> ResNet:
    """ResNet-18, for embeddings or for classes.

    Args:
        in_channels: Channels of the images.
        embedding_dim: Numbers in an embedding; None for the 512 pooled features themselves, or with ``num_classes``.
        num_classes: Number of logits of a classifier instead; needs ``embedding_dim=None``.
        stem: "cifar" (3x3, no pooling) for small images, "imagenet" (7x7, pooled) for large ones.
        normalize: Whether embeddings have unit L2 norm; logits never have.

    Returns:
        A module from ``[N, in_channels, H, W]`` to ``[N, D]``. Apart from ``fc``, checkpoints of torchvision fit.

    Raises:
        ValueError: If the stem is unknown or two heads are asked for.

    Example:
        >>> resnet18(embedding_dim=64)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 64])

    Reference:
        He et al., Deep Residual Learning for Image Recognition, CVPR 2016 (https://arxiv.org/abs/1512.03385).
    """
    return ResNet(
        BasicBlock,
        (2, 2, 2, 2),
        in_channels=in_channels,
        embedding_dim=embedding_dim,
        num_classes=num_classes,
        stem=stem,
        normalize=normalize,
    )


def resnet50(
    *,
    in_channels: int = 3,
    embedding_dim: int | None = 128,
    num_classes: int | None = None,
    stem: Stem = "cifar",
    normalize: bool = True,
) -> ResNet:
    """ResNet-50, for embeddings or for classes; arguments and errors as in :func:`resnet18`.

    Args:
        in_channels: Channels of the images.
        embedding_dim: Numbers in an embedding; None for the 2048 pooled features themselves, or with ``num_classes``.
        num_classes: Number of logits of a classifier instead; needs ``embedding_dim=None``.
        stem: "cifar" for small images, "imagenet" for large ones.
        normalize: Whether embeddings have unit L2 norm.

    Returns:
        A module from ``[N, in_channels, H, W]`` to ``[N, D]``. Apart from ``fc``, checkpoints of torchvision fit.

    Example:
        >>> resnet50(stem="imagenet")(torch.rand(2, 3, 224, 224)).shape
        torch.Size([2, 128])

    Reference:
        He et al., Deep Residual Learning for Image Recognition, CVPR 2016 (https://arxiv.org/abs/1512.03385).
    """
    return ResNet(
        Bottleneck,
        (3, 4, 6, 3),
        in_channels=in_channels,
        embedding_dim=embedding_dim,
        num_classes=num_classes,
        stem=stem,
        normalize=normalize,
    )
