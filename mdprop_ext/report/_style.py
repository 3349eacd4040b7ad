"""What all plots share: figures without global state, one set of colours, files written all at once."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from torch import Tensor

from mdprop_ext._files import write_bytes
from mdprop_ext._optional import require

# Okabe and Ito's colours, which colour-blind readers can tell apart, and shapes for readers without any colour.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DISTINCT = len(_COLOURS)
_LONGEST_NAME = 40
_LEGEND_LINE = 0.2  # inches
_GAP = 0.12  # between groups of images, in heights of an image
_CHARACTERS_AN_INCH = 12  # of small text


def new_panels(columns: int, *, rows: int = 1) -> tuple[Any, list[list[Any]]]:
    """Makes a figure with panels.

    Args:
        columns: Number of panels side by side.
        rows: Number of panels one below the other.

    Returns:
        The figure and its axes, row by row.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    figure = _new_figure(4.6 * columns, 3.6 * rows)
    axes = [list(row) for row in figure.subplots(rows, columns, squeeze=False)]
    for axis in (axis for row in axes for axis in row):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="0.9", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


def new_tiles(groups: Sequence[int], columns: int) -> tuple[Any, list[list[Any]]]:
    """Makes a figure with places for images, without ticks and frames.

    Args:
        groups: Numbers of rows of images that stay together; there is room between groups.
        columns: Images in a row.

    Returns:
        The figure and its axes, row by row.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    heights = [height for group in groups for height in (*([1.0] * group), _GAP)][:-1]
    figure = _new_figure(1.25 * columns + 0.9, 1.25 * sum(heights) + 0.5)
    axes = []
    for row, height in zip(
        figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights), heights, strict=True
    ):
        for axis in row:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        if height == 1:
            axes.append(list(row))
    return figure, axes


def show_image(axis: Any, pixels: Tensor) -> None:
    """Shows an ``uint8`` image ``[C, H, W]`` of 1 or 3 channels, pixel by pixel."""
    image = pixels.permute(1, 2, 0).cpu().numpy()
    axis.imshow(image.squeeze(2) if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=255, interpolation="none")


def add_legend(figure: Any) -> None:
    """Puts one legend for all panels below them, where it covers no data, in room that it adds to the figure."""
    entries: dict[str, Any] = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        longest = max(len(label) for label in entries) + 8  # with its line and the space around it
        columns = min(len(entries), max(1, int(figure.get_figwidth() * _CHARACTERS_AN_INCH / longest)))
        figure.set_figheight(figure.get_figheight() + _LEGEND_LINE * (-(-len(entries) // columns)))
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            fontsize="small",
            handlelength=3,
        )


def add_row_legends(figure: Any, rows: Sequence[Sequence[Any]]) -> None:
    """Puts a legend beside the last panel of each row, in room that it adds to the figure."""
    longest = 0
    for row in rows:
        entries = row[-1].get_legend_handles_labels()[1]
        longest = max([longest, *(len(label) for label in entries)])
        row[-1].legend(
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            borderaxespad=0,
            frameon=False,
            fontsize="small",
            handlelength=3,
        )
    figure.set_figwidth(figure.get_figwidth() + (longest + 8) / _CHARACTERS_AN_INCH)


def colour(index: int) -> str:
    """The colour of the curve or class with this index."""
    return _COLOURS[index % len(_COLOURS)]


def marker(index: int) -> str:
    """The marker of the curve or class with this index."""
    return _MARKERS[index % len(_MARKERS)]


def plain_text(text: str, longest: int = _LONGEST_NAME) -> str:
    """A name as a plot shows it: without its middle if it is long, and no dollar starts a formula."""
    if len(text) > longest:
        text = f"{text[: longest // 2]}…{text[-(longest // 2) :]}"
    return text.replace("$", r"\$")


def save_png(figure: Any, path: str | Path) -> None:
    """Writes a figure; the file is either old or new, never half written."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    write_bytes(Path(path), buffer.getvalue())


def _new_figure(width: float, height: float) -> Any:
    return require("matplotlib.figure", extra="plot").Figure(figsize=(width, height), layout="constrained", dpi=150)
