"""Progress on a terminal; elsewhere a line when work starts and one when it is done."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mdprop_ext._words import counted
from mdprop_ext.recipes.trainer import Record


class RunProgress:
    """Shows a training run and its evaluation on standard error.

    Args:
        title: What is running.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._tasks: dict[str, TaskID] = {}
        self._recall = ""
        self._start: float | None = None

    def __enter__(self) -> RunProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()
        if kind is None and self._start is not None:
            self._say(f"done after {time.perf_counter() - self._start:.0f} s")

    def observe(self, record: Record) -> None:
        """Shows a training step: its loss and the latest validation R@1."""
        if "val_recall_at_1" in record:
            self._recall = f"  val R@1 {100 * record['val_recall_at_1']:.1f} %"
        self._begin(f"training, {counted(round(record['steps']), 'step')}")
        self._show(self._title, record["step"], record["steps"], f"loss {record['loss']:.3f}{self._recall}")

    def observe_evaluation(self, done: int, total: int) -> None:
        """Shows how many attacks on the test images are finished."""
        self._begin(counted(total, "attack"))
        self._show(f"{self._title}, attacks", done, total, "")

    def _begin(self, work: str) -> None:
        """Says once what has begun; not before the first sign of it, so that wrong options leave their error alone."""
        if self._start is None:
            self._start = time.perf_counter()
            self._say(work)

    def _say(self, what: str) -> None:
        if self._progress.disable:
            sys.stderr.write(f"mdprop: {self._title}: {what}\n")
            sys.stderr.flush()

    def _show(self, title: str, done: float, total: float, state: str) -> None:
        if title not in self._tasks:
            self._tasks[title] = self._progress.add_task(title, total=total, state=state)
        self._progress.update(self._tasks[title], completed=done, state=state)
