"""What the sanitize stage calls, and what it makes of the words of compute-sanitizer."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from op_cases import OP_CASES

from benchmarks.gpu_check import process, sanitize, small_calls
from benchmarks.gpu_check.route_calls import route_calls
from benchmarks.gpu_check.stages import Context, Deadline, Report

ROOT = Path(__file__).resolve().parent.parent

CLEAN = "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n"
BAD = "========= COMPUTE-SANITIZER\n========= Invalid __global__ write of size 4\n========= ERROR SUMMARY: 2 errors\n"
RACE = "========= COMPUTE-SANITIZER\n========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n"
COMPLAINTS = [
    f"========= COMPUTE-SANITIZER\n========= {words}\n=========     at knn_scan_kernel+0x10\n"
    for words in (
        "Invalid __global__ write of size 4 bytes",
        "Error: Race reported between Write access at a and Read access at b [2 hazards]",
        "Barrier error detected. Divergent thread(s) in block",
    )
]
REFUSED = "========= COMPUTE-SANITIZER\n========= Error: Device not supported\n"


@pytest.mark.parametrize(
    ("finished", "calls", "verdict", "outcome"),
    [
        (process.Finished(0, CLEAN, 1), 5, "clean", "passed"),
        (process.Finished(0, RACE, 1), 5, "clean", "passed"),
        (process.Finished(86, BAD, 1), 5, "2 errors", "failed"),
        (process.Finished(None, "", 1), 2, "cut off", "cut off"),
        (process.Finished(None, "", 1), 0, "cut off", "cut off"),
        (process.Finished(1, REFUSED, 1), 0, "unavailable", "passed"),
        (process.Finished(-11, "", 1), 3, "clean", "failed"),
        (process.Finished(86, CLEAN, 1), 3, "clean", "failed"),
        *((process.Finished(None, words, 1), 3, "1 errors", "failed") for words in COMPLAINTS),
        *((process.Finished(86, words, 1), 0, "1 errors", "failed") for words in COMPLAINTS),
    ],
)
def test_the_verdict_on_a_sanitizer(finished, calls, verdict, outcome):
    report = Report()
    entries = [{"done": f"call {i}"} for i in range(calls)]
    assert sanitize.judge("memcheck", finished, entries, 5, report)["verdict"] == verdict
    assert report.verdict == outcome
    assert report.unavailable == ({"memcheck": "Error: Device not supported"} if verdict == "unavailable" else {})


def test_every_op_has_small_calls():
    for case in OP_CASES:
        names = [name for name, _ in small_calls.chosen(case)]
        assert names, case.name
        assert len(names) <= 4 * small_calls.MOST_CALLS


ROUTES = route_calls("cpu")


@pytest.mark.parametrize("name", ROUTES)
def test_the_call_of_a_route_is_a_right_one(name):
    ROUTES[name]()


def test_routes_are_called_before_samples(monkeypatch):
    monkeypatch.setattr(small_calls, "route_calls", lambda device: {f"route on {device}": dict})
    names = [name for name, _ in small_calls.calls()]
    assert names[0] == "route on cuda"
    assert len(names) > len(OP_CASES)
    assert len(set(names)) == len(names)


def stage(folder: Path, seconds: float, monkeypatch: pytest.MonkeyPatch) -> Report:
    """The stage with calls and a tool that are small programs: the tool complains, and waits to be ended."""
    calls = "from benchmarks.gpu_check.process import append; append({'done': 'one'})"
    tool = folder / "compute-sanitizer"
    tool.write_text("#!/bin/sh\necho '========= Invalid __shared__ read of size 8'\nexec sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setattr(sanitize, "CALLS", [sys.executable, "-c", calls])
    monkeypatch.setattr(sanitize, "find_sanitizer", lambda: str(tool))
    monkeypatch.setattr(process, "GRACE_S", 0.5)
    return sanitize.run(Context(ROOT, folder, {}, Deadline(seconds)))


def test_a_complaint_before_the_time_is_up_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(sanitize, "LEAST_SECONDS", 0.1)
    monkeypatch.setattr(sanitize, "TOOLS", {"memcheck": []})
    report = stage(tmp_path, 6, monkeypatch)
    assert report.failed == ["memcheck: 1 errors: Invalid __shared__ read of size 8"]
    assert not report.cut_off


def test_a_call_that_hangs_without_a_tool_is_told(tmp_path, monkeypatch):
    calls = "from benchmarks.gpu_check.process import append; append({'done': 'one'}); import time; time.sleep(60)"
    monkeypatch.setattr(process, "GRACE_S", 0.5)
    monkeypatch.setattr(sanitize, "CALLS", [sys.executable, "-c", calls])
    monkeypatch.setattr(sanitize, "find_sanitizer", lambda: None)
    report = sanitize.run(Context(ROOT, tmp_path, {}, Deadline(6)))
    assert report.cut_off == ["without a tool: 1 calls ended, the next one did not"]
    assert set(report.unavailable) == set(sanitize.TOOLS)


def test_no_tool_starts_without_time(tmp_path, monkeypatch):
    report = stage(tmp_path, sanitize.LEAST_SECONDS, monkeypatch)  # the calls without a tool take some of it
    assert report.cut_off == [f"{tool}: 1 of 1 calls" for tool in sanitize.TOOLS]
    assert report.details["tools"] == {}


def test_the_time_of_a_program_includes_its_start(tmp_path):
    program = "import time; time.sleep(1); from benchmarks.gpu_check import process as p; "
    program += "p.append({'left': p.deadline_told().left()})"
    record = tmp_path / "record"
    process.run_recorded([sys.executable, "-c", program], record=record, seconds=60, cwd=ROOT)
    assert 0 < process.read_record(record)[0]["left"] < 59
    assert process.END_VARIABLE not in os.environ
    assert process.deadline_told().left() == float("inf")
