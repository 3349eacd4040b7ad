"""What a stage is, and how several are run: within their time, whatever happens to the others, each with its file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PASSED, FAILED, CUT_OFF, SKIPPED = "passed", "failed", "cut off", "skipped"
GRACE_S = 10.0  # that a program which was told to end gets beyond its time
EXIT_STATUS = {PASSED: 0, SKIPPED: 1, FAILED: 1, CUT_OFF: 3}


class Deadline:
    """The end of a span of time."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that remain, never less than 0."""
        return max(0.0, self._end - time.monotonic())


@dataclass(frozen=True)
class Context:
    """What a stage gets: checkout, folder for builds, facts of the machine, time, verdicts of the stages before it."""

    root: Path
    work: Path
    facts: Mapping[str, Any]
    deadline: Deadline
    verdicts: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Report:
    """What a stage found: figures, what failed, what its time cut off, what this machine refuses and why."""

    details: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    cut_off: list[str] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        return FAILED if self.failed else CUT_OFF if self.cut_off else PASSED


@dataclass(frozen=True)
class Stage:
    """One part of the check; ``needs`` names stages without whose success it would prove nothing."""

    name: str
    seconds: float
    run: Callable[[Context], Report]
    needs: tuple[str, ...] = ()


def run_stages(
    stages: Sequence[Stage],
    *,
    root: Path,
    out: Path,
    work: Path,
    facts: Mapping[str, Any],
    announce: Callable[[str], None] = print,
    clock: Deadline | None = None,
) -> dict[str, str]:
    """Runs stages in order and writes ``<out>/<stage>.json`` as soon as each has ended.

    A stage that raises has failed; the next ones run all the same, unless they need it. Each gets its own seconds, or
    what is left on the ``clock`` that they share, less the grace that its programs have to end by themselves.

    Returns:
        The verdict of each stage.
    """
    out.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    verdicts: dict[str, str] = {}
    for stage in stages:
        start = time.monotonic()
        limit = stage.seconds if clock is None else min(stage.seconds, max(0.0, clock.left() - GRACE_S))
        report, verdict = _run(stage, Context(root, work, facts, Deadline(limit), dict(verdicts)))
        verdicts[stage.name] = verdict
        seconds = time.monotonic() - start
        content = {
            "stage": stage.name,
            "verdict": verdict,
            "seconds": round(seconds, 1),
            "budget_s": round(limit, 1),
            "failed": report.failed,
            "cut_off": report.cut_off,
            "unavailable": report.unavailable,
            "machine": dict(facts),
            **report.details,
        }
        write_json(out / f"{stage.name}.json", content)
        announce(line(stage.name, verdict, seconds, report))
    return verdicts


def _run(stage: Stage, context: Context) -> tuple[Report, str]:
    missing = [name for name in stage.needs if context.verdicts.get(name, PASSED) != PASSED]
    if missing:
        return Report(failed=[f"not run: {missing[0]} {context.verdicts[missing[0]]}"]), SKIPPED
    if context.deadline.left() == 0:
        return Report(cut_off=["the whole stage: no time was left for it"]), CUT_OFF
    try:
        report = stage.run(context)
    except Exception as error:  # whatever breaks a stage becomes its verdict, so that the next ones run
        report = Report(failed=[f"{type(error).__name__}: {error}"])
    return report, report.verdict


def line(name: str, verdict: str, seconds: float, report: Report) -> str:
    """One row of the closing table: verdict, seconds, and the first of each thing that went wrong."""
    remarks = [str(report.details["summary"])] if "summary" in report.details else []
    remarks += [f"failed ({len(report.failed)}): {shortened(report.failed[0])}"] if report.failed else []
    remarks += [f"cut off ({len(report.cut_off)}): {shortened(report.cut_off[0])}"] if report.cut_off else []
    remarks += [f"{what} unavailable: {shortened(why)}" for what, why in report.unavailable.items()]
    return f"{name:<9} {verdict:<8} {seconds:6.1f} s  {'; '.join(remarks)}".rstrip()


def shortened(text: str, length: int = 120) -> str:
    """The first line of a text, cut."""
    first = text.strip().partition("\n")[0]
    return first if len(first) <= length else first[: length - 3] + "..."


def exit_status(verdicts: Mapping[str, str]) -> int:
    """0 if all passed, 1 if one failed, 3 if none failed but the time was too short for one."""
    statuses = {EXIT_STATUS[verdict] for verdict in verdicts.values()}
    return 1 if 1 in statuses else max(statuses, default=0)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, all at once. The package's own helper would load the module that the first stage replaces."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
