"""Programs that a stage starts: with a limit on their time, and a file to which they record as they go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.stages import GRACE_S, Deadline

RECORD_VARIABLE = "MDPROP_GPU_CHECK_RECORD"
END_VARIABLE = "MDPROP_GPU_CHECK_END"
TAIL = 4000


@dataclass(frozen=True)
class Finished:
    """How a program ended; ``status`` is None where its time was up."""

    status: int | None
    output: str
    seconds: float

    @property
    def tail(self) -> str:
        """The end of its output."""
        return self.output[-TAIL:].strip()


def run_limited(
    command: Sequence[str], *, seconds: float, cwd: Path, environment: Mapping[str, str] | None = None
) -> Finished:
    """Runs a program and all it starts for so long at most; standard output and error come back as one text."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            list(command),
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        status: int | None = None
        try:
            status = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            stop_group(process)
        output.seek(0)
        text = output.read().decode(errors="replace")
    return Finished(status, text, time.monotonic() - start)


def stop_group(process: subprocess.Popen[Any]) -> None:
    """Ends what is left of a program and of the programs that it started."""
    for number, wait in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 10.0)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=wait)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def run_recorded(
    command: Sequence[str],
    *,
    record: Path,
    seconds: float,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Runs a program that calls :func:`append`; it is told when to end, and given a little more to do so by itself."""
    told = {RECORD_VARIABLE: str(record), END_VARIABLE: f"{time.monotonic() + seconds:.1f}"}
    return run_limited(command, seconds=seconds + GRACE_S, cwd=cwd, environment={**(environment or {}), **told})


def append(entry: dict[str, Any]) -> None:
    """Adds an entry to the record of this program, at once: it may be ended at any time."""
    path = os.environ.get(RECORD_VARIABLE)
    if path is None:
        print(json.dumps(entry), flush=True)
        return
    with open(path, "a") as file:
        file.write(json.dumps(entry) + "\n")


def read_record(record: Path) -> list[dict[str, Any]]:
    """The whole entries of a record; the last one may have been cut."""
    entries = []
    for row in record.read_text().splitlines() if record.exists() else ():
        try:
            entries.append(json.loads(row))
        except json.JSONDecodeError:
            break
    return entries


def read_own_record() -> list[dict[str, Any]]:
    """What this program, or one before it that was to do the same, has recorded."""
    path = os.environ.get(RECORD_VARIABLE)
    return [] if path is None else read_record(Path(path))


def deadline_told() -> Deadline:
    """When this program was told to end: its imports count, since the clock is that of the program that started it."""
    return Deadline(float(os.environ.get(END_VARIABLE, "inf")) - time.monotonic())
