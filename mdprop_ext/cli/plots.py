"""The plots that commands write, where matplotlib is there to draw them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mdprop_ext.cli.attack import AttackOutcome
from mdprop_ext.metrics import nearest_neighbours
from mdprop_ext.recipes.attacked_images import spread_positions
from mdprop_ext.recipes.trainer import Record
from mdprop_ext.report import (
    Retrieval,
    plot_adversarial_grid,
    plot_embedding_map,
    plot_neighbours,
    plot_robustness,
    plot_training,
)

_LOGGER = logging.getLogger(__name__)
_GRID_IMAGES = 6
_NEIGHBOURS = 6
_NEIGHBOUR_ROWS = 8


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
    plots: dict[str, Callable[[Path], None]] = {"robustness.png": partial(plot_robustness, metrics)}
    if histories is not None:
        plots["training.png"] = partial(plot_training, histories)
    return _write(out, plots)


def write_attack_plots(out: Path, outcome: AttackOutcome, *, method: Literal["pca", "tsne"] = "pca") -> list[Path]:
    """Draws ``grid.png``, ``neighbours.png`` and ``embeddings.png``.

    Args:
        out: An existing folder.
        outcome: What the attacks did.
        method: How embeddings are mapped to two dimensions.

    Returns:
        The files written; none, with a warning, where a package that draws them is not installed.
    """
    labels = outcome.images.labels[outcome.positions]
    shown = spread_positions(labels, _GRID_IMAGES)
    clean = outcome.images.images[outcome.positions]
    attacked = {name: pixels[shown] for name, pixels in outcome.pixels.items()}
    return _write(
        out,
        {
            "grid.png": lambda path: plot_adversarial_grid(clean[shown], attacked, path),
            "neighbours.png": lambda path: plot_neighbours(_retrievals(outcome), path),
            "embeddings.png": lambda path: plot_embedding_map(
                outcome.gallery[outcome.positions],
                labels,
                path,
                attacked=outcome.embeddings,
                classes=outcome.images.classes,
                method=method,
            ),
        },
    )


def _retrievals(outcome: AttackOutcome) -> list[list[Retrieval]]:
    """What a few queries find, clean and attacked: first those that the most attacks lead astray."""
    images, positions = outcome.images, outcome.positions
    count = min(_NEIGHBOURS, len(images) - 1)
    pixels: dict[str, Tensor] = {"clean": images.images[positions], **outcome.pixels}
    queries = {"clean": outcome.gallery[positions], **outcome.embeddings}
    found = {name: nearest_neighbours(own, outcome.gallery, count, left_out=positions) for name, own in queries.items()}
    right = {name: images.labels[nearest] == images.labels[positions, None] for name, nearest in found.items()}
    lost = torch.stack([right["clean"][:, 0] & ~right[name][:, 0] for name in outcome.pixels]).sum(0)
    chosen = lost.argsort(descending=True, stable=True)[: max(1, _NEIGHBOUR_ROWS // len(found))]

    def retrieval(name: str, query: int) -> Retrieval:
        title = name if name == "clean" else name.upper()
        return Retrieval(title, pixels[name][query], images.images[found[name][query]], right[name][query])

    return [[retrieval(name, query) for name in found] for query in chosen.tolist()]


def _write(out: Path, plots: Mapping[str, Callable[[Path], None]]) -> list[Path]:
    try:
        for name, plot in plots.items():
            plot(out / name)
    except ImportError as error:
        _LOGGER.warning("no plots: %s", error)
        return []
    return [out / name for name in plots]
