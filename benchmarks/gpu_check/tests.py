"""Stage test: the tests that need a card, in as many processes as it takes to get past those that break one."""

from __future__ import annotations

import sys
from collections import Counter

from benchmarks.gpu_check.restarts import Program, Runs, run_to_the_end
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
    return summary(run_to_the_end(Program(command, "collected", "test", MOST_PROCESSES), context))


def summary(runs: Runs) -> Report:
    """Counts outcomes; failures with their messages, skipped tests by reason."""
    entries = runs.entries
    crashes = {name: f"the process ended with {status} during this test" for name, status in runs.crashes.items()}
    # A test that fails in its call and in its tear-down has two entries, and counts once.
    outcomes = {entry["test"]: entry for entry in entries if "test" in entry and entry["outcome"] != "failed"}
    outcomes.update({entry["test"]: entry for entry in entries if "test" in entry and entry["outcome"] == "failed"})
    counts = Counter(entry["outcome"] for entry in outcomes.values())
    failures = {name: entry["message"] for name, entry in outcomes.items() if entry["outcome"] == "failed"} | crashes
    slowest = sorted(outcomes.values(), key=lambda entry: -entry["seconds"])[:10]
    report = Report(failed=[f"{name}: {last_line(message)}" for name, message in failures.items()])
    report.cut_off = runs.interrupted + runs.not_started
    if not any("collected" in entry for entry in entries):
        report.failed.append(f"pytest did not start: {shortened(runs.finished.tail[-300:])}")
    elif not outcomes and not failures:
        report.failed.append("no test was run")
    report.details = {
        "summary": f"{counts['passed']} passed, {len(failures)} failed, {counts['skipped']} skipped",
        "processes": runs.processes,
        "messages": failures,
        "skipped": dict(Counter(e["message"] for e in outcomes.values() if e["outcome"] == "skipped")),
        "slowest_s": {entry["test"]: round(entry["seconds"], 1) for entry in slowest},
        "output": runs.finished.tail if report.failed else "",
    }
    return report


def last_line(message: str) -> str:
    """What an error says: pytest marks those lines with an E."""
    lines = [line for line in message.splitlines() if line.startswith("E ")] or message.splitlines() or [""]
    return lines[0].removeprefix("E ").strip()
