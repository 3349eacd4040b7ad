"""One training run in a folder: log, checkpoint and metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from mdprop_ext._files import check_output_folder, write_json
from mdprop_ext.data import Splits
from mdprop_ext.recipes.base import Recipe
from mdprop_ext.recipes.checkpoint import Checkpoint, save_checkpoint
from mdprop_ext.recipes.evaluation import RobustnessMeter, clean_metrics, grid_settings, robust_grid, robust_protocol
from mdprop_ext.recipes.train_config import TrainConfig
from mdprop_ext.recipes.trainer import Record, train

METRICS_FILE = "metrics.json"
LOG_FILE = "log.jsonl"
_GRID_ATTACKS = ("st", "mt5")
_GRID_EPS_255 = (8.0, 16.0)
_GRID_STEPS = (5,)


class RunInterrupted(Exception):
    """Ctrl-C ended a run; the message says where the model is."""


@dataclass(frozen=True)
class RunResult:
    """What a finished run has to show.

    Args:
        metrics: The content of ``metrics.json``.
        history: The lines of ``log.jsonl``.
    """

    metrics: dict[str, Any]
    history: list[Record]


def run_training(
    recipe: Recipe[Any],
    splits: Splits,
    config: TrainConfig,
    out: Path,
    *,
    data: Mapping[str, Any] | None = None,
    observe: Callable[[Record], None] | None = None,
    observe_evaluation: Callable[[int, int], None] | None = None,
) -> RunResult:
    """Trains a model and measures it on the test split.

    Writes ``log.jsonl`` line by line, then the checkpoint (``model.safetensors`` and ``config.json``), then
    ``metrics.json``, which an unfinished run does not have. The folder is created with the first line of the log, so
    data or options that do not work leave nothing behind.

    Args:
        recipe: How to train.
        splits: Images for training, validation and test.
        config: Model, optimiser and length.
        out: The folder; results of an earlier run in it are replaced.
        data: Where the images came from, for the checkpoint.
        observe: Called after every step with its record.
        observe_evaluation: Called with the numbers of finished and of all attacks on the test split.

    Returns:
        Metrics and history.

    Raises:
        RunInterrupted: After Ctrl-C. The checkpoint then holds the model as it was.
        ValueError: If ``out`` cannot be a folder, or the data does not suit model or recipe.
    """
    check_output_folder(out)
    with _RunLog(out) as log:

        def record_step(record: Record) -> None:
            log.add(record)
            if observe is not None:
                observe(record)

        outcome = train(recipe, splits, config, observe=record_step)
    if not log.history:
        raise RunInterrupted("interrupted before the first step: nothing was written")
    channels, height, width = splits.train.images.shape[1:]
    description = Checkpoint.of(
        recipe, config, image_shape=(channels, height, width), step=outcome.step, data=data or {}
    )
    save_checkpoint(out, outcome.model, description)
    if outcome.interrupted:
        raise RunInterrupted(f"interrupted at step {outcome.step}: the model is saved in '{out}'")
    try:
        meter = RobustnessMeter(outcome.model, splits.test, seed=recipe.seed)
        settings = grid_settings(_GRID_ATTACKS, _GRID_EPS_255, _GRID_STEPS)
        grid = robust_grid(meter, settings, all_branches=False, observe=observe_evaluation)
        metrics = {
            "recipe": recipe.name,
            "seed": recipe.seed,
            "seconds": outcome.seconds,
            "test": clean_metrics(outcome.model, splits.test),
            "robust": robust_protocol(meter),
            "robust_grid": grid,
        }
    except KeyboardInterrupt:
        raise RunInterrupted(f"interrupted in the final evaluation: the model is saved in '{out}'") from None
    write_json(out / METRICS_FILE, metrics)
    return RunResult(metrics, log.history)


class _RunLog:
    """``log.jsonl`` and its lines."""

    def __init__(self, out: Path) -> None:
        self.history: list[Record] = []
        self._out = out
        self._file: TextIO | None = None

    def add(self, record: Record) -> None:
        """Appends a line; the first one creates the folder and ends the results of an earlier run."""
        if self._file is None:
            self._out.mkdir(parents=True, exist_ok=True)
            (self._out / METRICS_FILE).unlink(missing_ok=True)
            self._file = (self._out / LOG_FILE).open("w")
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        self.history.append(record)

    def __enter__(self) -> _RunLog:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()
