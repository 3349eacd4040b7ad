"""Stage sanitize: a few small calls of every op under the tools of compute-sanitizer, where the machine allows them."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.machine import find_nvcc
from benchmarks.gpu_check.process import Finished, read_record, run_recorded
from benchmarks.gpu_check.stages import Context, Report, shortened

# Refusals of API calls that torch makes on purpose are no errors of ours.
TOOLS = {"memcheck": ["--report-api-errors", "no"], "racecheck": [], "synccheck": []}
CALLS = [sys.executable, "-m", "benchmarks.gpu_check.small_calls"]
SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)")
# What a tool says of a kernel, which it prints as it goes; a tool that is killed prints no summary.
COMPLAINT = re.compile(
    r"Invalid |Misaligned|Out-of-range|Illegal|Race reported|hazard|Barrier error|Divergent thread|Malloc/Free|"
    r"overflow",
    re.IGNORECASE,
)
LEAST_SECONDS = 5.0  # with less a tool could not even start
FOUND_ERRORS = 86  # the status by which a tool tells of errors


def find_sanitizer() -> str | None:
    """compute-sanitizer, on PATH or beside nvcc."""
    nvcc = find_nvcc()
    beside = str(Path(nvcc).resolve().with_name("compute-sanitizer")) if nvcc else ""
    return shutil.which("compute-sanitizer") or shutil.which(beside)


def run(context: Context) -> Report:
    """Runs the calls without a tool, which shows that they work, then under each tool for its share of the time."""
    environment = {
        "MDPROP_BACKEND": "ext",
        "PYTHONPATH": os.pathsep.join([str(context.root), str(context.root / "python_tests")]),
        # Each tensor gets an allocation of its own, at whose end the tools look.
        "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",
    }
    report = Report()
    # Half of the time at most: a call that hangs here hangs under the tools too.
    plain, entries = recorded([], context, context.deadline.left() / 2, environment)
    report.failed = failures(entries, plain, "without a tool")
    done = sum("done" in entry for entry in entries)
    report.details = {"calls": done, "tools": {}}
    if plain.status is None:
        report.cut_off.append(f"without a tool: {done} calls ended, the next one did not")
    if done == 0:
        return report
    program = find_sanitizer()
    for position, (tool, options) in enumerate(TOOLS.items()):
        if program is None:
            report.unavailable[tool] = "compute-sanitizer was not found on PATH or beside nvcc"
            continue
        left = context.deadline.left()
        if left < LEAST_SECONDS:
            report.cut_off.append(f"{tool}: {done} of {done} calls")
            continue
        command = [program, "--tool", tool, *options, "--error-exitcode", str(FOUND_ERRORS)]
        share = max(LEAST_SECONDS, left / (len(TOOLS) - position))
        finished, entries = recorded(command, context, share, environment)
        report.details["tools"][tool] = judge(tool, finished, entries, done, report)
    verdicts = [f"{tool} {result['verdict']}" for tool, result in report.details["tools"].items()]
    report.details["summary"] = ", ".join([f"{done} calls", *verdicts])
    return report


def recorded(
    prefix: list[str], context: Context, seconds: float, environment: dict[str, str]
) -> tuple[Finished, list[dict[str, Any]]]:
    """Runs the calls behind a command, and reads what they recorded."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record"
        finished = run_recorded(
            [*prefix, *CALLS], record=record, seconds=seconds, cwd=context.root, environment=environment
        )
        return finished, read_record(record)


def failures(entries: list[dict[str, Any]], finished: Finished, where: str) -> list[str]:
    """The calls that raised, and the end of a process that did not end by itself."""
    failed = [f"{entry['failed']} {where}: {entry['message']}" for entry in entries if "failed" in entry]
    if not failed and finished.status not in (0, None):
        failed.append(f"the calls {where} ended with {finished.status}: {shortened(finished.tail[-300:])}")
    return failed


def judge(tool: str, finished: Finished, entries: list[dict[str, Any]], wanted: int, report: Report) -> dict[str, Any]:
    """The verdict on one tool, entered into the report: clean, errors, cut off, or unavailable on this machine."""
    done = sum("done" in entry for entry in entries)
    result = {"calls": done, "seconds": round(finished.seconds, 1), "verdict": "clean"}
    found = SUMMARY.search(finished.output)
    complaints = complaints_in(finished.output)
    if complaints or (found is not None and int(found[1]) > 0):
        count = int(found[1]) if found is not None and int(found[1]) > 0 else len(complaints)
        result["verdict"] = f"{count} errors"
        why = shortened(complaints[0]) if complaints else first_line(finished.output)
        report.failed.append(f"{tool}: {count} errors: {why}")
        result["output"] = finished.output[:8000]
    elif done == 0 and finished.status not in (None, FOUND_ERRORS):
        # The same calls ran without the tool, so it is the tool that this machine refuses.
        result["verdict"] = "unavailable"
        report.unavailable[tool] = first_line(finished.output)
    elif done < wanted and finished.status in (0, None):
        result["verdict"] = "cut off"
        report.cut_off.append(f"{tool}: {wanted - done} of {wanted} calls")
    else:
        report.failed += failures(entries, finished, f"under {tool}")
        if found is None:
            report.failed.append(f"{tool}: no summary: {shortened(finished.tail[-300:])}")
    return result


def lines_of_tool(output: str) -> list[str]:
    """What a tool writes beside its name and its summary."""
    lines = [line.lstrip("= ").strip() for line in output.splitlines() if line.startswith("=========")]
    return [line for line in lines if line and not line.startswith("COMPUTE-SANITIZER") and "SUMMARY" not in line]


def complaints_in(output: str) -> list[str]:
    """What a tool found wrong with a kernel."""
    return [line for line in lines_of_tool(output) if COMPLAINT.search(line)]


def first_line(output: str) -> str:
    """The first line of a tool, else the last of the output."""
    return shortened((lines_of_tool(output) or output.strip().splitlines()[-1:] or ["no output"])[0])
