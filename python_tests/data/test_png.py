from __future__ import annotations

from io import BytesIO

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mdprop_ext.data.png import decode_png, encode_png


@given(channels=st.sampled_from([1, 3]), height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_pixels_come_back(channels, height, width, seed):
    pixels = torch.randint(256, (channels, height, width), generator=torch.Generator().manual_seed(seed)).byte()
    data = encode_png(pixels)
    assert torch.equal(decode_png(data), pixels)
    # An independent reader.
    with Image.open(BytesIO(data)) as image:
        assert (image.format, image.mode, image.size) == ("PNG", {1: "L", 3: "RGB"}[channels], (width, height))
        image.load()
        assert (numpy.asarray(image).reshape(height, width, channels) == pixels.permute(1, 2, 0).numpy()).all()


def test_strided_pixels():
    pixels = torch.arange(24, dtype=torch.uint8).reshape(4, 6)[:, ::2].T[None]
    assert torch.equal(decode_png(encode_png(pixels)), pixels)


@pytest.mark.parametrize("shape", [(2, 4, 4), (4, 4), (1, 0, 4)])
def test_other_shapes(shape):
    with pytest.raises(ValueError, match=r"pixels: expected shape \[1, H, W\] or \[3, H, W\], got"):
        encode_png(torch.zeros(shape, dtype=torch.uint8))


def test_other_types():
    with pytest.raises(TypeError, match=r"pixels: expected dtype torch\.uint8, got torch\.float32"):
        encode_png(torch.zeros(1, 2, 2))


def test_damaged_and_foreign_files():
    whole = encode_png(torch.randint(256, (3, 8, 8)).byte())
    filtered = BytesIO()
    Image.fromarray(numpy.arange(64, dtype=numpy.uint8).reshape(8, 8)).resize((40, 40)).save(filtered, "PNG")
    for data in (b"", whole[:30], whole[:60], b"not a picture" * 9, filtered.getvalue()):
        with pytest.raises(ValueError, match="a PNG file that encode_png wrote"):
            decode_png(data)
