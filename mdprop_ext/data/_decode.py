"""From the bytes of an image file to pixels."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy
import numpy.typing

from mdprop_ext._optional import require

_SIXTEEN_BIT_MODES = frozenset({"I", "I;16", "I;16B", "I;16L"})
_GREY_MODES = frozenset({"1", "L", "LA"}) | _SIXTEEN_BIT_MODES


def is_greyscale(data: bytes) -> bool:
    """Tells from the header whether the file stores grey levels only."""
    return _open(data).mode in _GREY_MODES


def decode_image(data: bytes, *, image_size: int, channels: int) -> numpy.typing.NDArray[numpy.uint8]:
    """Decodes an image file to a square.

    Images that are not square lose the longer side's margins; shrinking is antialiased. Transparent parts are white.

    Args:
        data: The file's bytes.
        image_size: Height and width of the result.
        channels: 1 for grey levels, 3 for RGB.

    Returns:
        Array ``[channels, image_size, image_size]``.

    Raises:
        Exception: Of many kinds, as the image library's decoders raise, when the data is damaged.
    """
    image_module = require("PIL.Image", extra="demo")
    operations = require("PIL.ImageOps", extra="demo")
    image = operations.exif_transpose(_open(data))
    if image.mode in _SIXTEEN_BIT_MODES:
        # The library's own conversion would clip at 255.
        image = image_module.fromarray((numpy.asarray(image) >> 8).astype(numpy.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = image_module.alpha_composite(image_module.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    square = operations.fit(image, (image_size, image_size), method=image_module.Resampling.BILINEAR)
    pixels = numpy.asarray(square, dtype=numpy.uint8).reshape(image_size, image_size, channels)
    return numpy.moveaxis(pixels, 2, 0)


def _open(data: bytes) -> Any:
    return require("PIL.Image", extra="demo").open(BytesIO(data))
