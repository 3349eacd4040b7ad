"""The work of ``mdprop eval``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mdprop_ext._files import check_output_folder, write_json
from mdprop_ext.cli.data_source import DataSource
from mdprop_ext.recipes import (
    AttackSetting,
    RobustnessMeter,
    load_checkpoint,
)
from mdprop_ext.recipes.device import resolve_device
from mdprop_ext.recipes.measurement import measure
from mdprop_ext.recipes.run import METRICS_FILE


def evaluate_checkpoint(
    folder: Path,
    out: Path,
    settings: Sequence[AttackSetting],
    *,
    source: DataSource | None = None,
    seed: int | None = None,
    device: str = "auto",
    observe: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measures a trained model on test images, clean and under attacks, and writes ``metrics.json``.

    Args:
        folder: The checkpoint.
        out: Folder for the results.
        settings: The attacks; each goes through every branch of the model.
        source: The images; None for the test images of the checkpoint's training run.
        seed: Of the attacks; None for the one of the training run, which gives its numbers again.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        observe: Called with the numbers of finished and of all attacks, at the start and after each of them.

    Returns:
        The content of ``metrics.json``; its ``seconds`` are those of the measurements.

    Raises:
        ValueError: If checkpoint, data or folder is wrong; nothing is written then.
    """
    check_output_folder(out)
    if out.resolve() == folder.resolve():
        raise ValueError(
            f"out: expected another folder than the checkpoint's, which keeps its own metrics, got '{out}'"
        )
    place = resolve_device(device)
    model, checkpoint = load_checkpoint(folder)
    model.to(place)
    if source is None:
        source = DataSource.described(checkpoint.data)
    images = source.like_checkpoint(checkpoint).load_test()
    start = time.perf_counter()
    meter = RobustnessMeter(model, images, seed=checkpoint.seed if seed is None else seed)
    measured = measure(meter, settings, all_branches=True, observe=observe)
    seconds = time.perf_counter() - start
    metrics = {"recipe": checkpoint.recipe, "seed": meter.seed, "seconds": seconds, **measured}
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / METRICS_FILE, metrics)
    return metrics
