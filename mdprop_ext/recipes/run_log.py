"""``log.jsonl``, the history of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TextIO

from mdprop_ext._files import write_bytes
from mdprop_ext.recipes.trainer import Record

LOG_FILE = "log.jsonl"


class RunLog:
    """Appends one line a step.

    Args:
        folder: Of the run; it has to be there with the first line.
        steps_done: Lines of an interrupted run to keep; later ones, whose steps will be done again, are dropped.

    Raises:
        ValueError: If the log has fewer lines.
    """

    def __init__(self, folder: Path, *, steps_done: int = 0) -> None:
        self._path = folder / LOG_FILE
        self.history: list[Record] = read_history(folder)[:steps_done] if steps_done else []
        if len(self.history) < steps_done:
            raise ValueError(
                f"resume: '{self._path}' ends at step {len(self.history)}, before the state to resume from"
            )
        if steps_done:
            write_bytes(self._path, "".join(_line(record) for record in self.history).encode())
        self._file: TextIO | None = None

    def add(self, record: Record) -> None:
        """Writes a line through to the file, so that it outlives this process."""
        if self._file is None:
            self._file = self._path.open("a" if self.history else "w")
        self._file.write(_line(record))
        self._file.flush()
        self.history.append(record)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()


def read_history(folder: Path) -> list[Record]:
    """Reads the lines of a log, up to one that is only half there."""
    history: list[Record] = []
    try:
        lines = (folder / LOG_FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return history
    for line in lines:
        try:
            history.append(json.loads(line))
        except ValueError:
            break
    return history


def _line(record: Record) -> str:
    return json.dumps(record) + "\n"
