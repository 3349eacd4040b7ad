"""The handwritten digits that come with scikit-learn."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from mdprop_ext._optional import require
from mdprop_ext.data._arguments import check_channels, check_image_size
from mdprop_ext.data.image_set import ImageSet


def load_digits(*, image_size: int = 16, channels: int = 1) -> ImageSet:
    """Loads 1,797 handwritten digits, light ink on a dark ground; nothing is downloaded.

    The originals have 8 x 8 pixels of 17 grey levels. They are enlarged bilinearly, by default to twice their size,
    the smallest that four halvings of a convolutional network leave room for.

    Args:
        image_size: Height and width in pixels, at least 1.
        channels: 1, or 3 for three equal channels.

    Returns:
        The set of ten classes ``"0"`` to ``"9"``.

    Raises:
        ImportError: If scikit-learn is not installed.
        TypeError: If an argument is not an integer.
        ValueError: If ``image_size`` is below 1 or ``channels`` is neither 1 nor 3.

    Example:
        >>> len(load_digits())
        1797

    Reference:
        E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits. UCI Machine Learning Repository, 1998.
    """
    check_image_size(image_size)
    check_channels(channels)
    bunch = require("sklearn.datasets", extra="demo").load_digits()
    ink = torch.from_numpy(bunch.images).float().unsqueeze(1) * (255 / 16)
    scaled = F.interpolate(ink, size=(image_size, image_size), mode="bilinear", antialias=True)
    images = scaled.round().clamp(0, 255).to(torch.uint8).repeat(1, channels, 1, 1)
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    return ImageSet(images, labels, tuple(str(digit) for digit in range(10)))
