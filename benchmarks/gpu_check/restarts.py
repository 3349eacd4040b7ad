"""A program that goes through a list, and is started again where it ended on the way.

A kernel that reads out of bounds breaks all later calls of its process: the next process goes on behind it. The program
records its whole list first, then ``{"started": name}`` and an entry of its own for each name that has ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.gpu_check.process import Finished, read_record, run_recorded
from benchmarks.gpu_check.stages import Context


@dataclass(frozen=True)
class Program:
    """What is run: ``listed`` and ``ended`` are the keys of the entries with all names and with one that has ended."""

    command: Sequence[str]
    listed: str
    ended: str
    most_processes: int


@dataclass(frozen=True)
class Runs:
    """What all processes recorded, how the last one ended, and with what status one ended during a name."""

    entries: list[dict[str, Any]]
    finished: Finished
    crashes: dict[str, int]
    processes: int
    program: Program

    @property
    def started(self) -> set[str]:
        """The names that were begun."""
        return started(self.entries)

    @property
    def not_started(self) -> list[str]:
        """The listed names that were not, in their order."""
        listed: list[str] = next(
            (entry[self.program.listed] for entry in self.entries if self.program.listed in entry), []
        )
        return [name for name in listed if name not in self.started]

    @property
    def interrupted(self) -> list[str]:
        """The names that were begun and neither ended nor ended their process: the time was up."""
        return [name for name in _unfinished(self.entries, self.program.ended) if name not in self.crashes]


def run_to_the_end(program: Program, context: Context, environment: Mapping[str, str] | None = None) -> Runs:
    """Starts the program until every listed name was begun, the time is up or nothing moves any more."""
    with TemporaryDirectory() as folder:
        record = Path(folder) / "record"
        crashes: dict[str, int] = {}
        processes, before = 0, -1
        while True:
            processes += 1
            seconds = context.deadline.left()
            finished = run_recorded(
                program.command, record=record, seconds=seconds, cwd=context.root, environment=environment
            )
            entries = read_record(record)
            if finished.status is not None:
                unfinished = _unfinished(entries, program.ended)
                crashes |= {name: finished.status for name in unfinished if name not in crashes}
            runs = Runs(entries, finished, crashes, processes, program)
            stuck = len(runs.started) == before or processes == program.most_processes
            if not runs.not_started or stuck or context.deadline.left() == 0:
                return runs
            before = len(runs.started)


def started(entries: list[dict[str, Any]]) -> set[str]:
    """The names that were begun."""
    return {entry["started"] for entry in entries if "started" in entry}


def _unfinished(entries: list[dict[str, Any]], ended: str) -> list[str]:
    return sorted(started(entries) - {entry[ended] for entry in entries if ended in entry})
