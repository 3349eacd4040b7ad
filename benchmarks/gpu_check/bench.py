"""Stage bench: what is unknown of the card, the kernels behind torch's batch norm, and the tables of the ops."""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.build import unknowns_program
from benchmarks.gpu_check.gate import committed, drops
from benchmarks.gpu_check.process import read_record, run_limited, run_recorded
from benchmarks.gpu_check.restarts import Program, Runs, run_to_the_end
from benchmarks.gpu_check.stages import PASSED, Context, Report, shortened

KERNEL_SETTINGS = 24  # eager or compiled, three dtypes, two layouts, two directions
MOST_PROCESSES = 4  # of the tables: a case that breaks the card costs the start of another one
ONLY_KERNELS = {"MDPROP_BACKEND": "ext"}  # no reference in place of an op that was not built


def run(context: Context) -> Report:
    """Runs the three parts; the first two may take a part of the time each, the tables what is left."""
    report = Report()
    for part in (unknowns, batch_norm_kernels, tables):
        try:
            part(context, report)
        except Exception as error:  # a part that breaks must not hide the next ones
            report.failed.append(f"{part.__name__}: {type(error).__name__}: {error}")
    return report


def unknowns(context: Context, report: Report) -> None:
    """Runs the micro-benchmarks that the build stage compiled."""
    program = unknowns_program(context)
    if not program.exists():
        report.failed.append(f"unknowns: {program} is absent: run the build stage first")
        return
    finished = run_limited([str(program)], seconds=min(45.0, 0.25 * context.deadline.left()), cwd=context.root)
    if finished.status is None:
        report.cut_off.append("unknowns")
        return
    if finished.status != 0:
        report.failed.append(f"unknowns: status {finished.status}: {shortened(finished.tail[-300:])}")
        return
    report.details["unknowns"] = json.loads(finished.output)
    report.failed += [f"unknowns: {fault}" for fault in faults(report.details["unknowns"])]


def faults(found: Any, where: str = "") -> Iterator[str]:
    """Every ``error`` and every result that is not exact, however deep it lies."""
    parts = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    for name, part in parts:
        if name == "error":
            yield f"{where}: {part}"
        elif name == "exact" and part is not True:
            yield f"{where}: the results are not exact"
        else:
            yield from faults(part, f"{where}.{name}" if where else str(name))


def batch_norm_kernels(context: Context, report: Report) -> None:
    """Lists the kernels, eager ones first."""
    seconds = min(45.0, 0.3 * context.deadline.left())
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record"
        finished = run_recorded(
            module("batch_norm_kernels"), record=record, seconds=seconds, cwd=context.root, environment=ONLY_KERNELS
        )
        entries = read_record(record)
    report.details["batch_norm_kernels"] = entries
    missing = KERNEL_SETTINGS - len(entries)
    if finished.status is None:
        report.cut_off.append(f"batch_norm_kernels: {missing} of {KERNEL_SETTINGS} settings")
    elif not entries:
        report.unavailable["batch_norm_kernels"] = shortened((finished.tail.splitlines() or ["no output"])[-1])
    elif missing:
        report.failed.append(f"batch_norm_kernels: status {finished.status}: {shortened(finished.tail[-300:])}")


def tables(context: Context, report: Report) -> None:
    """Measures the ops, unless what lies in the checkout is not what it says, and compares with committed results."""
    if context.verdicts.get("build", PASSED) != PASSED:
        report.failed.append(f"tables: not measured: build {context.verdicts['build']}")
        return
    program = Program(module("measure"), "planned", "ended", MOST_PROCESSES)
    known = committed(context.root / "benchmarks/results", context.facts.get("gpu"))  # which this run may replace
    enter_tables(report, run_to_the_end(program, context, ONLY_KERNELS))
    report.details["compared_rows"] = len(known)
    report.failed += drops(report.details["rows"], known)


def module(name: str) -> list[str]:
    """How a module of this package is started."""
    return [sys.executable, "-m", f"benchmarks.gpu_check.{name}"]


def enter_tables(report: Report, runs: Runs) -> None:
    """Rows, failures, absent peers, and the cases that there was no time for."""

    def values(key: str) -> list[Any]:
        return [entry[key] for entry in runs.entries if key in entry]

    rows, failed, finished = values("row"), [entry for entry in runs.entries if "failed" in entry], runs.finished
    report.failed += [f"{entry['failed']}: {entry['message']}" for entry in failed]
    report.unavailable |= {entry["unavailable"]: entry["message"] for entry in runs.entries if "unavailable" in entry}
    report.failed += [f"{name}: the process ended with {status}" for name, status in runs.crashes.items()]
    report.cut_off += runs.interrupted + runs.not_started
    unexplained = not failed and not runs.crashes and finished.status is not None
    if unexplained and (finished.status != 0 or not runs.entries):
        report.failed.append(f"tables: status {finished.status}: {shortened(finished.tail[-300:])}")
    report.details |= {
        "ceilings": next(iter(values("ceilings")), None),
        "rows": rows,
        "absent": {f"{e['row']['op']} {e['row']['case']}": e["absent"] for e in runs.entries if e.get("absent")},
        "processes": runs.processes,
    }
    counts = Counter(row["op"] for row in rows)
    report.details["summary"] = ", ".join(f"{op} {count} rows" for op, count in counts.items()) or "no rows"
