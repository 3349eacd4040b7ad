"""Checks of the arguments that the loaders share."""

from __future__ import annotations


def check_image_size(image_size: int) -> None:
    """Raises unless ``image_size`` is an integer of at least 1."""
    if not isinstance(image_size, int) or isinstance(image_size, bool):
        raise TypeError(f"image_size: expected an integer, got {type(image_size).__name__}")
    if image_size < 1:
        raise ValueError(f"image_size: expected at least 1 pixel, got {image_size}")


def check_channels(channels: int) -> None:
    """Raises unless ``channels`` is 1 or 3."""
    if not isinstance(channels, int) or isinstance(channels, bool):
        raise TypeError(f"channels: expected an integer, got {type(channels).__name__}")
    if channels not in (1, 3):
        raise ValueError(f"channels: expected 1 (greyscale) or 3 (RGB), got {channels}")
