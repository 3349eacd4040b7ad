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
from benchmarks.gpu_check.process import Finished, read_record, run_limited, run_recorded
from benchmarks.gpu_check.stages import PASSED, Context, Report, shortened

KERNEL_SETTINGS = 24  # eager or compiled, three dtypes, two layouts, two directions


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
    finished = run_limited([str(program)], seconds=min(45.0, 0.3 * context.deadline.left()), cwd=context.root)
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
    seconds = min(60.0, 0.4 * context.deadline.left())
    finished, entries = recorded("batch_norm_kernels", context, seconds)
    report.details["batch_norm_kernels"] = entries
    missing = KERNEL_SETTINGS - len(entries)
    if finished.status is None:
        report.cut_off.append(f"batch_norm_kernels: {missing} of {KERNEL_SETTINGS} settings")
    elif not entries:
        report.unavailable["batch_norm_kernels"] = shortened((finished.tail.splitlines() or ["no output"])[-1])
    elif missing:
        report.failed.append(f"batch_norm_kernels: status {finished.status}: {shortened(finished.tail[-300:])}")


def tables(context: Context, report: Report) -> None:
    """Measures the ops, unless what lies in the checkout is not what it says."""
    if context.verdicts.get("build", PASSED) != PASSED:
        report.failed.append(f"tables: not measured: build {context.verdicts['build']}")
        return
    finished, entries = recorded("measure", context, context.deadline.left())
    enter_tables(report, entries, finished)


def recorded(module: str, context: Context, seconds: float) -> tuple[Finished, list[dict[str, Any]]]:
    """Runs a module of this package on compiled kernels only, and reads what it recorded."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record"
        command = [sys.executable, "-m", f"benchmarks.gpu_check.{module}"]
        environment = {"MDPROP_BACKEND": "ext"}
        finished = run_recorded(command, record=record, seconds=seconds, cwd=context.root, environment=environment)
        return finished, read_record(record)


def enter_tables(report: Report, entries: list[dict[str, Any]], finished: Finished) -> None:
    """Rows, failures, absent peers, and the cases that there was no time for."""

    def values(key: str) -> list[Any]:
        return [entry[key] for entry in entries if key in entry]

    rows, failed = values("row"), [entry for entry in entries if "failed" in entry]
    report.failed += [f"{entry['failed']}: {entry['message']}" for entry in failed]
    started = values("started")
    done = len(rows) + len(failed)  # each started case leaves one of both
    report.cut_off += [name for names in values("planned") for name in names if name not in started]
    if done < len(started):
        where = report.cut_off if finished.status is None else report.failed
        where.append(f"{started[-1]}: ended with {finished.status}")
    elif not entries or (finished.status not in (0, None) and not failed):
        report.failed.append(f"tables: status {finished.status}: {shortened(finished.tail[-300:])}")
    report.details |= {
        "ceilings": next(iter(values("ceilings")), None),
        "rows": rows,
        "absent": {f"{e['row']['op']} {e['row']['case']}": e["absent"] for e in entries if e.get("absent")},
    }
    counts = Counter(row["op"] for row in rows)
    report.details["summary"] = ", ".join(f"{op} {count} rows" for op, count in counts.items()) or "no rows"
