"""One training run in a folder: log, checkpoint and metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from mdprop_ext._files import check_output_folder, remove_leftovers, write_json
from mdprop_ext._optional import require
from mdprop_ext._words import counted
from mdprop_ext.data import ImageSet, Splits
from mdprop_ext.recipes._folder_lock import FolderLock
from mdprop_ext.recipes._state import StateTree
from mdprop_ext.recipes.base import Recipe
from mdprop_ext.recipes.checkpoint import CONFIG_FILE, Checkpoint, read_description, save_checkpoint
from mdprop_ext.recipes.device import resolve_device
from mdprop_ext.recipes.evaluation import RobustnessMeter, grid_settings
from mdprop_ext.recipes.measurement import measure
from mdprop_ext.recipes.processes import done_by_first, is_first_process
from mdprop_ext.recipes.run_log import RunLog, read_history
from mdprop_ext.recipes.state_file import STATE_FILE, read_state, read_state_description, write_state
from mdprop_ext.recipes.tensorboard_log import TensorBoardLog
from mdprop_ext.recipes.train_config import TrainConfig
from mdprop_ext.recipes.trainer import Record, train

METRICS_FILE = "metrics.json"
_GRID_ATTACKS = ("st", "mt5")
_GRID_EPS_255 = (8.0, 16.0)
_GRID_STEPS = (5,)


class RunInterrupted(Exception):
    """Ctrl-C ended a run; the message says where the model is."""


@dataclass(frozen=True, repr=False)
class RunResult:
    """What a finished run has to show.

    Args:
        metrics: The content of ``metrics.json``.
        history: The lines of ``log.jsonl``.
    """

    metrics: dict[str, Any]
    history: list[Record]

    def __repr__(self) -> str:
        recalls = {"clean": self.metrics["test"], **self.metrics["robust"]}
        shown = ", ".join(f"{name} {100 * each['recall_at_1']:.1f} %" for name, each in recalls.items())
        run = f"{self.metrics['recipe']}, seed={self.metrics['seed']}, {counted(len(self.history), 'step')}"
        return f"RunResult({run}, R@1: {shown})"


def run_training(
    recipe: Recipe[Any],
    splits: Splits,
    config: TrainConfig,
    out: Path,
    *,
    data: Mapping[str, Any] | None = None,
    device: str = "auto",
    resume: bool = False,
    tensorboard: bool = False,
    observe: Callable[[Record], None] | None = None,
    observe_evaluation: Callable[[int, int], None] | None = None,
) -> RunResult:
    """Trains a model and measures it on the test split.

    Writes ``log.jsonl`` line by line and regularly a state to resume from; then the checkpoint, ``model.safetensors``
    and ``config.json``; then ``metrics.json``, which an unfinished run does not have. The folder is created with the
    first line of the log, so data or options that do not work leave nothing.

    Args:
        recipe: How to train.
        splits: Images for training, validation and test.
        config: Model, optimiser and length.
        out: The folder; results of an earlier run in it are replaced unless it is resumed.
        data: Where the images came from, for the checkpoint.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        resume: Whether to go on with the run in ``out``, interrupted or killed at any moment; the result is, bit for
            bit, that of a run that was not. A finished run is returned as it is; where there is none, it starts.
        tensorboard: Whether to write event files to ``out/tensorboard`` too.
        observe: Called after every step with its record.
        observe_evaluation: Called with the numbers of finished and of all attacks on the test split, at the start and
            after each of them.

    Returns:
        Metrics and history.

    Raises:
        ImportError: If ``tensorboard`` is asked for and not installed.
        RunInterrupted: After Ctrl-C. The checkpoint then holds the model as it was.
        ValueError: If ``out`` cannot be a folder or another run is writing to it, the data does not suit, or the run to
            resume is another one.
    """
    check_output_folder(out)
    if tensorboard:
        require("tensorboard", extra="log")
    place = resolve_device(device)
    description = Checkpoint.of(recipe, config, splits=splits, data=data or {}, device=place.type)
    lock = FolderLock(out)
    with lock if is_first_process() else nullcontext():
        if resume:
            _require_same(saved_description(out), description, out)
            if is_finished(out):
                return RunResult(json.loads((out / METRICS_FILE).read_bytes()), read_history(out))
        state = read_state(out) if resume and (out / STATE_FILE).is_file() else None
        if not is_first_process():
            return _help_first_process(recipe, splits, config, device, state)
        with _Recorder(out, state, lock, tensorboard=tensorboard, observe=observe) as recorder:
            save = partial(write_state, out, description)
            outcome = train(recipe, splits, config, device=device, observe=recorder.add, save=save, state=state)
        if not recorder.log.history:
            raise RunInterrupted("interrupted before the first step: nothing was written")
        save_checkpoint(out, outcome.model, replace(description, step=outcome.step))
        if outcome.interrupted:
            raise RunInterrupted(f"interrupted at step {outcome.step}: the model is saved in '{out}', --resume goes on")
        measured = _measure(outcome.model, splits.test, recipe.seed, out, observe_evaluation)
        metrics = {"recipe": description.recipe, "seed": recipe.seed, "seconds": outcome.seconds, **measured}
        write_json(out / METRICS_FILE, metrics)
        (out / STATE_FILE).unlink()
        return done_by_first(lambda: RunResult(metrics, recorder.log.history))


def is_finished(out: Path) -> bool:
    """Tells whether a folder holds a run that has nothing left to do."""
    # A state beside metrics means that these were measured on the model of an interrupted run.
    files_of_finished = (METRICS_FILE, CONFIG_FILE)
    return all((out / name).is_file() for name in files_of_finished) and not (out / STATE_FILE).is_file()


def saved_description(out: Path) -> Checkpoint | None:
    """Says what the run in a folder trains, if it can be resumed or is finished.

    Raises:
        ValueError: If its files are damaged.
    """
    if (out / STATE_FILE).is_file():
        return read_state_description(out)
    return read_description(out) if is_finished(out) else None


def _help_first_process(
    recipe: Recipe[Any], splits: Splits, config: TrainConfig, device: str, state: StateTree | None
) -> RunResult:
    """Trains with the first process, which alone writes and measures, and returns what came out there."""
    if train(recipe, splits, config, device=device, save=lambda new: None, state=state).interrupted:
        raise RunInterrupted("interrupted")
    return done_by_first(_no_result)


def _no_result() -> RunResult:
    raise RuntimeError("only the first process has a result")


def _require_same(saved: Checkpoint | None, asked: Checkpoint, out: Path) -> None:
    difference = None if saved is None else saved.difference(asked)
    if difference is not None:
        raise ValueError(f"resume: expected the options of the run in '{out}', got {difference}")


def _measure(
    model: nn.Module, images: ImageSet, seed: int, out: Path, observe: Callable[[int, int], None] | None
) -> dict[str, Any]:
    settings = grid_settings(_GRID_ATTACKS, _GRID_EPS_255, _GRID_STEPS)
    try:
        return measure(RobustnessMeter(model, images, seed=seed), settings, all_branches=False, observe=observe)
    except KeyboardInterrupt:
        message = f"interrupted in the final evaluation: the model is saved in '{out}', --resume measures it"
        raise RunInterrupted(message) from None


class _Recorder:
    """Everything that hears of a step; the first one creates the folder and ends the results of an earlier run."""

    def __init__(
        self,
        out: Path,
        state: StateTree | None,
        lock: FolderLock,
        *,
        tensorboard: bool,
        observe: Callable[[Record], None] | None,
    ) -> None:
        remove_leftovers(out)
        self.log = RunLog(out, steps_done=0 if state is None else state["step"])
        self._out = out
        self._lock = lock
        self._observe = observe
        self._wants_board = tensorboard
        self._board: TensorBoardLog | None = None

    def add(self, record: Record) -> None:
        if not self.log.history:
            self._out.mkdir(parents=True, exist_ok=True)
            self._lock.take()
            # In this order: a state beside metrics is that of an unfinished run, metrics alone are of a finished one.
            (self._out / METRICS_FILE).unlink(missing_ok=True)
            (self._out / STATE_FILE).unlink(missing_ok=True)
        if self._wants_board and self._board is None:
            self._board = TensorBoardLog(self._out, self.log.history)
        self.log.add(record)
        if self._board is not None:
            self._board.add(record)
        if self._observe is not None:
            self._observe(record)

    def __enter__(self) -> _Recorder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.log.__exit__()
        if self._board is not None:
            self._board.close()
