"""8-bit PNG files without an image library, for pixels that must arrive as they are."""

from __future__ import annotations

import struct
import zlib

import numpy
import torch
from torch import Tensor

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 3: 2}  # channels to the format's numbers for grey levels and RGB


def encode_png(pixels: Tensor) -> bytes:
    """Encodes an image without loss; the same pixels give the same bytes.

    Args:
        pixels: ``uint8`` tensor ``[C, H, W]`` of 1 (grey levels) or 3 (RGB) channels.

    Returns:
        The content of a PNG file.

    Raises:
        TypeError: If ``pixels`` is not ``uint8``.
        ValueError: If its shape is another, or empty.

    Example:
        >>> encode_png(torch.zeros(1, 2, 2, dtype=torch.uint8))[1:4]
        b'PNG'
    """
    if pixels.dtype != torch.uint8:
        raise TypeError(f"pixels: expected dtype torch.uint8, got {pixels.dtype}")
    if pixels.ndim != 3 or pixels.shape[0] not in _COLOUR_TYPES or 0 in pixels.shape:
        raise ValueError(f"pixels: expected shape [1, H, W] or [3, H, W], got {list(pixels.shape)}")
    channels, height, width = pixels.shape
    rows = pixels.permute(1, 2, 0).reshape(height, width * channels).cpu().numpy()
    # Every row begins with the number of its filter, here 0 for none.
    data = zlib.compress(numpy.pad(rows, ((0, 0), (1, 0))).tobytes(), 6)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def decode_png(data: bytes) -> Tensor:
    """Decodes what :func:`encode_png` encoded; other PNG files need an image library.

    Args:
        data: The content of the file.

    Returns:
        The pixels, ``uint8`` ``[C, H, W]``.

    Raises:
        ValueError: If the data is damaged or comes from another encoder.
    """
    try:
        (width, height, depth, colour_type, *_), rest = struct.unpack_from(">IIBBBBB", data, 16), data[33:]
        channels = {number: channels for channels, number in _COLOUR_TYPES.items()}[colour_type]
        (length,) = struct.unpack_from(">I", rest)
        rows = numpy.frombuffer(zlib.decompress(rest[8 : 8 + length]), dtype=numpy.uint8)
        rows = rows.reshape(height, 1 + width * channels)
        if depth != 8 or rows[:, 0].any():
            raise ValueError("it is filtered")
    except (struct.error, zlib.error, ValueError, KeyError):
        raise ValueError("data: expected a PNG file that encode_png wrote, got another or a damaged one") from None
    return torch.tensor(rows[:, 1:]).reshape(height, width, channels).permute(2, 0, 1).contiguous()


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
