"""Tests of the embedded digits."""

from __future__ import annotations

import numpy
import pytest
import torch

pytest.importorskip("sklearn")

from mdprop_ext.data import load_digits


def test_originals_are_kept_at_their_own_size() -> None:
    from sklearn.datasets import load_digits as load_originals

    originals = load_originals()
    digits = load_digits(image_size=8)
    assert digits.images.shape == (1797, 1, 8, 8)
    assert digits.classes == tuple("0123456789")
    assert numpy.array_equal(digits.labels.numpy(), originals.target)
    expected = numpy.rint(originals.images * 255 / 16)
    assert numpy.abs(digits.images[:, 0].numpy().astype(float) - expected).max() <= 1


@pytest.mark.parametrize("image_size", [1, 16, 28])
def test_image_size(image_size: int) -> None:
    digits = load_digits(image_size=image_size)
    assert digits.images.shape == (1797, 1, image_size, image_size)
    assert digits.images.dtype == torch.uint8


def test_enlarging_keeps_the_mean_brightness() -> None:
    small, large = load_digits(image_size=8), load_digits(image_size=28)
    assert abs(small.floats().mean().item() - large.floats().mean().item()) < 0.01


def test_three_channels_are_equal() -> None:
    digits = load_digits(channels=3)
    assert digits.images.shape == (1797, 3, 16, 16)
    assert torch.equal(digits.images[:, 0], digits.images[:, 2])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"image_size": 0}, ValueError, "image_size: expected at least 1 pixel, got 0"),
        ({"image_size": 8.0}, TypeError, "image_size: expected an integer, got float"),
        ({"channels": 2}, ValueError, "channels: expected 1 .* or 3 .* got 2"),
        ({"channels": "1"}, TypeError, "channels: expected an integer, got str"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_digits(**options)
