"""The picture of what a query finds before and after an attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mdprop_ext._optional import require
from mdprop_ext.report._style import colour, new_tiles, plain_text, save_png, show_image

_RIGHT, _WRONG = colour(0), colour(1)
_DASHES = (0, (2, 1))


@dataclass(frozen=True, eq=False)
class Retrieval:
    """A query and what it found.

    Args:
        name: What the query is, such as ``"clean"`` or the name of an attack.
        query: ``uint8`` image ``[C, H, W]``.
        neighbours: ``uint8`` images ``[K, C, H, W]``, nearest first.
        right: Whether each neighbour has the query's class: bool ``[K]``.
    """

    name: str
    query: Tensor
    neighbours: Tensor
    right: Tensor


def plot_neighbours(groups: Sequence[Sequence[Retrieval]], path: str | Path) -> None:
    """Plots queries and their nearest images; see :func:`neighbours_figure`.

    Args:
        groups: Rows that belong together, such as a query clean and attacked; all have the same number of neighbours.
        path: The PNG file to write.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there are none, or their numbers of neighbours differ.
    """
    save_png(neighbours_figure(groups), path)


def neighbours_figure(groups: Sequence[Sequence[Retrieval]]) -> Any:
    """Draws one row a query: the query and its neighbours, nearest first.

    Neighbours of the query's class have a solid frame, others a dashed one of another colour.

    Args:
        groups: Rows that belong together, such as a query clean and attacked; all have the same number of neighbours.

    Returns:
        The matplotlib figure.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there are none, or their numbers of neighbours differ.
    """
    retrievals = [retrieval for group in groups for retrieval in group]
    counts = {len(retrieval.neighbours) for retrieval in retrievals}
    if len(counts) != 1:
        raise ValueError(f"groups: expected the same number of neighbours in every row, got {sorted(counts)}")
    figure, rows = new_tiles([len(group) for group in groups], 1 + counts.pop())
    for row, retrieval in zip(rows, retrievals, strict=True):
        show_image(row[0], retrieval.query)
        row[0].set_ylabel(plain_text(retrieval.name, 14), fontsize="small")
        for axis, image, right in zip(row[1:], retrieval.neighbours, retrieval.right.tolist(), strict=True):
            show_image(axis, image)
            frame = {"color": _RIGHT, "linestyle": "-"} if right else {"color": _WRONG, "linestyle": _DASHES}
            # Square ends would fill the gaps between dashes.
            axis.spines[:].set(visible=True, linewidth=3, capstyle="projecting" if right else "butt", **frame)
    for place, axis in enumerate(rows[0]):
        axis.set_title(f"nearest {place}" if place else "query", fontsize="small")
    _explain_frames(figure)
    return figure


def _explain_frames(figure: Any) -> None:
    line = require("matplotlib.lines", extra="plot").Line2D
    frames = [line([], [], color=_RIGHT, linewidth=3), line([], [], color=_WRONG, linewidth=3, linestyle=_DASHES)]
    labels = ["class of the query", "another class"]
    figure.legend(frames, labels, loc="outside lower center", ncols=2, frameon=False, fontsize="small", handlelength=3)
