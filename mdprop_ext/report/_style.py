"""What all plots share: figures without global state, one set of colours, files written all at once."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from mdprop_ext._files import write_bytes
from mdprop_ext._optional import require

# Okabe and Ito's colours, which colour-blind readers can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def new_panels(count: int) -> tuple[Any, list[Any]]:
    """Makes a figure with panels side by side.

    Args:
        count: Number of panels.

    Returns:
        The figure and its axes.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    figure = require("matplotlib.figure", extra="plot").Figure(
        figsize=(4.6 * count, 3.6), layout="constrained", dpi=150
    )
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="0.9", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


def colour(index: int) -> str:
    """The colour of the curve with this index."""
    return _COLOURS[index % len(_COLOURS)]


def save_png(figure: Any, path: Path) -> None:
    """Writes a figure; the file is either old or new, never half written."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    write_bytes(path, buffer.getvalue())
