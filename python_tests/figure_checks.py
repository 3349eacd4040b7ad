"""What the tests of plots look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
from PIL import Image


def decoded(path: Path) -> numpy.ndarray:
    """The pixels of a PNG file ``[H, W, 3]``."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        return numpy.asarray(image.convert("RGB"))


def labels_below(figure: Any) -> list[str]:
    """Labels of the figure's legend, which must lie below all panels once the figure is laid out."""
    (legend,) = figure.legends
    figure.draw_without_rendering()
    top = legend.get_window_extent().y1
    assert all(axis.get_tightbbox().y0 >= top - 1 for axis in figure.axes)
    assert legend.get_window_extent().x0 >= 0
    assert legend.get_window_extent().x1 <= figure.bbox.width
    return [text.get_text() for text in legend.get_texts()]


def texts_inside(figure: Any) -> bool:
    """Whether titles and labels of all panels lie within the figure."""
    figure.draw_without_rendering()
    boxes = [axis.get_tightbbox() for axis in figure.axes]
    return all(box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.width + 1 for box in boxes)
