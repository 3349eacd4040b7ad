"""The plots that commands write, where matplotlib is there to draw them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdprop_ext.recipes.trainer import Record
from mdprop_ext.report import plot_robustness, plot_training

_LOGGER = logging.getLogger(__name__)


def write_plots(
    out: Path, metrics: Mapping[str, Mapping[str, Any]], histories: Mapping[str, Sequence[Record]] | None = None
) -> list[Path]:
    """Draws ``robustness.png`` and, with histories, ``training.png``.

    Args:
        out: An existing folder.
        metrics: Contents of ``metrics.json`` by the name of the run.
        histories: Lines of ``log.jsonl`` by the name of the run.

    Returns:
        The files written; none, with a warning, where matplotlib is not installed.
    """
    try:
        plot_robustness(metrics, out / "robustness.png")
        if histories is None:
            return [out / "robustness.png"]
        plot_training(histories, out / "training.png")
    except ImportError as error:
        _LOGGER.warning("no plots: %s", error)
        return []
    return [out / "robustness.png", out / "training.png"]
