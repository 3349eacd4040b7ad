"""Stage test: the tests that need a card, in as many processes as it takes to get past those that break one."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.process import Finished, read_record, run_recorded
from benchmarks.gpu_check.stages import Context, Report, shortened

# What is special about GPUs first: it is quicker and says more than the long table behind it.
PATHS = ("python_tests/gpu", "python_tests/test_op_contract.py", "python_tests/ops/test_sizes.py")
MOST_PROCESSES = 20


def pytest_command(paths: tuple[str, ...] = PATHS, *, marker: str = "cuda") -> list[str]:
    """How the tests are started; the project's own options may name plugins that are not installed."""
    return [
        *(
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--no-header",
            "--tb=short",
            "--continue-on-collection-errors",
            "-p",
            "no:cacheprovider",
        ),
        *("-o", "addopts=--import-mode=importlib", "-p", "benchmarks.gpu_check.record_plugin"),
        *("-m", marker, *paths),
    ]


def run(context: Context) -> Report:
    """Runs all tests that are marked as needing CUDA."""
    return run_tests(context, pytest_command())


def run_tests(context: Context, command: list[str]) -> Report:
    """Runs pytest until every collected test has been started, the time is up or nothing moves any more."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record"
        crashes: dict[str, str] = {}
        processes = 0
        while processes < MOST_PROCESSES:
            processes += 1
            before = len(started(read_record(record)))
            finished = run_recorded(command, record=record, seconds=context.deadline.left(), cwd=context.root)
            entries = read_record(record)
            if finished.status is not None:
                how = f"the process ended with {finished.status} during this test"
                crashes.update({name: how for name in unfinished(entries) if name not in crashes})
            if not remaining(entries) or context.deadline.left() == 0 or len(started(entries)) == before:
                break
    return summary(entries, crashes, finished, processes)


def started(entries: list[dict[str, Any]]) -> set[str]:
    """The tests that began."""
    return {entry["started"] for entry in entries if "started" in entry}


def remaining(entries: list[dict[str, Any]]) -> list[str]:
    """The collected tests that were not started."""
    collected: list[str] = next((entry["collected"] for entry in entries if "collected" in entry), [])
    return [name for name in collected if name not in started(entries)]


def unfinished(entries: list[dict[str, Any]]) -> list[str]:
    """The tests that were started and never ended."""
    return sorted(started(entries) - {entry["test"] for entry in entries if "test" in entry})


def summary(entries: list[dict[str, Any]], crashes: dict[str, str], finished: Finished, processes: int) -> Report:
    """Counts outcomes; failures with their messages, skipped tests by reason."""
    # A test that fails in its call and in its tear-down has two entries, and counts once.
    outcomes = {entry["test"]: entry for entry in entries if "test" in entry and entry["outcome"] != "failed"}
    outcomes.update({entry["test"]: entry for entry in entries if "test" in entry and entry["outcome"] == "failed"})
    counts = Counter(entry["outcome"] for entry in outcomes.values())
    failures = {name: entry["message"] for name, entry in outcomes.items() if entry["outcome"] == "failed"} | crashes
    slowest = sorted(outcomes.values(), key=lambda entry: -entry["seconds"])[:10]
    report = Report(failed=[f"{name}: {last_line(message)}" for name, message in failures.items()])
    report.cut_off = [name for name in unfinished(entries) if name not in crashes] + remaining(entries)
    if not any("collected" in entry for entry in entries):
        report.failed.append(f"pytest did not start: {shortened(finished.tail[-300:])}")
    elif not outcomes and not failures:
        report.failed.append("no test was run")
    report.details = {
        "summary": f"{counts['passed']} passed, {len(failures)} failed, {counts['skipped']} skipped",
        "processes": processes,
        "messages": failures,
        "skipped": dict(Counter(e["message"] for e in outcomes.values() if e["outcome"] == "skipped")),
        "slowest_s": {entry["test"]: round(entry["seconds"], 1) for entry in slowest},
        "output": finished.tail if report.failed else "",
    }
    return report


def last_line(message: str) -> str:
    """What an error says: pytest marks those lines with an E."""
    lines = [line for line in message.splitlines() if line.startswith("E ")] or message.splitlines() or [""]
    return lines[0].removeprefix("E ").strip()
