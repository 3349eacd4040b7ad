"""What the stages of ``python -m benchmarks.gpu_check`` make of what their programs did."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from benchmarks.gpu_check import bench, build, process, restarts, tests
from benchmarks.gpu_check.stages import Context, Deadline, Report

ROOT = Path(__file__).resolve().parent.parent


def context(folder: Path, seconds: float = 60, **verdicts: str) -> Context:
    return Context(ROOT, folder, {"capability": [9, 0]}, Deadline(seconds), verdicts)


def collected_report(folder: Path, body: str, seconds: float = 60) -> Report:
    """The test stage's report on a small file of tests."""
    (folder / "test_small.py").write_text(
        "import os, time, pytest\npytestmark = pytest.mark.cuda\n" + textwrap.dedent(body)
    )
    return tests.run_tests(context(folder, seconds), tests.pytest_command((str(folder),)))


@pytest.mark.filterwarnings("ignore")
def test_tests_are_counted_and_those_behind_a_crash_run_too(tmp_path):
    body = """
        def test_good(): pass
        def test_wrong(): assert 1 == 2, "one is not two"
        def test_left_out(): pytest.skip("no such card")
        def test_crash(): os._exit(7)
        def test_behind(): pass
        @pytest.fixture
        def torn():
            yield
            raise ValueError("while tearing down")
        def test_torn(torn): pass
    """
    (tmp_path / "test_other.py").write_text("def test_without_the_marker(): assert False\n")
    report = collected_report(tmp_path, body)
    assert report.verdict == "failed"
    assert report.details["summary"] == "2 passed, 3 failed, 1 skipped"
    assert report.details["processes"] == 2
    assert report.details["skipped"] == {"Skipped: no such card": 1}
    assert sorted(text.partition("::")[2] for text in report.failed) == [
        "test_crash: the process ended with 7 during this test",
        "test_torn: ValueError: while tearing down",
        "test_wrong: AssertionError: one is not two",
    ]


def test_tests_stop_when_their_time_is_up(tmp_path):
    body = """
        @pytest.mark.parametrize("number", range(40))
        def test_slow(number): time.sleep(0.5)
    """
    report = collected_report(tmp_path, body, seconds=6)
    assert report.verdict == "cut off"
    assert 20 < len(report.cut_off) < 40
    assert report.cut_off[-1].endswith("test_small.py::test_slow[39]")
    assert not report.failed


def test_tests_that_do_not_start_have_failed(tmp_path):
    assert collected_report(tmp_path, "").failed == ["no test was run"]
    (tmp_path / "test_broken.py").write_text("import nothing_of_that_name\n")
    report = collected_report(tmp_path, "def test_good(): pass")
    assert report.details["summary"] == "1 passed, 1 failed, 0 skipped"
    assert "No module named 'nothing_of_that_name'" in report.failed[0]
    not_pytest = tests.run_tests(context(tmp_path), [sys.executable, "-c", "raise SystemExit('no pytest')"])
    assert not_pytest.failed == ["pytest did not start: no pytest"]


def runs(entries: list[dict], status: int | None, **crashes: int) -> restarts.Runs:
    program = restarts.Program([], "planned", "ended", 4)
    return restarts.Runs(entries, process.Finished(status, "abort", 9), crashes, 1, program)


def test_rows_are_kept_whatever_ends_the_measurement():
    entries = [
        {"planned": ["a", "b", "c", "d"]}, {"ceilings": {"copy_bytes_per_s": 1.0}}, {"started": "a"},
        {"row": {"op": "pgd_step", "case": "a"}, "absent": {"compile": "no compiler"}}, {"ended": "a"},
        {"started": "b"}, {"failed": "b", "message": "another result"}, {"ended": "b"}, {"started": "c"},
        {"unavailable": "c", "message": "no timm"},
    ]  # fmt: skip
    report = Report()
    bench.enter_tables(report, runs(entries, None))
    assert [row["case"] for row in report.details["rows"]] == ["a"]
    assert report.details["absent"] == {"pgd_step a": {"compile": "no compiler"}}
    assert report.details["ceilings"] == {"copy_bytes_per_s": 1.0}
    assert report.failed == ["b: another result"]
    assert report.cut_off == ["c", "d"]
    assert report.unavailable == {"c": "no timm"}
    crashed = Report()
    bench.enter_tables(crashed, runs(entries[:3], -6, a=-6))
    assert crashed.failed == ["a: the process ended with -6"]
    silent = Report()
    bench.enter_tables(silent, runs([], 1))
    assert silent.failed == ["tables: status 1: abort"]


MEASUREMENT = """
import os, sys
from benchmarks.gpu_check.process import append, read_own_record
from benchmarks.gpu_check.restarts import started
names = ["a", "lost", "b", "dead", "c"]
row = lambda name: {"op": "op", "case": name, "dtype": "float32", "floor_fraction": None}
seen = started(read_own_record())
if not seen:
    append({"planned": names})
for name in names:
    if name in seen:
        continue
    append({"started": name})
    if name == "dead":
        os._exit(9)
    append({"failed": name, "message": "illegal access"} if name == "lost" else {"row": row(name)})
    append({"ended": name})
    if name == "lost":
        sys.exit(1)
"""


def test_rows_behind_a_case_that_breaks_the_card_are_measured_by_another_process(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "module", lambda name: [sys.executable, "-c", MEASUREMENT])
    report = Report()
    bench.tables(context(tmp_path), report)
    assert [row["case"] for row in report.details["rows"]] == ["a", "b", "c"]
    assert report.failed == ["lost: illegal access", "dead: the process ended with 9"]
    assert (report.cut_off, report.details["processes"]) == ([], 3)
    monkeypatch.setattr(bench, "MOST_PROCESSES", 2)
    report = Report()
    bench.tables(context(tmp_path), report)
    assert (report.cut_off, report.details["processes"]) == (["c"], 2)


def row(case: str, fraction: float | None, dtype: str = "float32") -> dict:
    return {"op": "op", "case": case, "dtype": dtype, "floor_fraction": fraction}


def test_a_row_that_became_slower_than_the_committed_one_has_failed(tmp_path, monkeypatch):
    known = [row("a", 0.9), row("b", 0.9), row("c", None), row("d", 0.9), row("e", 0.9), row("g", 0.06)]
    for name, gpu, rows in (("one", "Big Card", known), ("other", "Small Card", [row("f", 0.99)])):
        folder = tmp_path / "benchmarks/results" / name
        folder.mkdir(parents=True)
        (folder / "bench.json").write_text(json.dumps({"machine": {"gpu": gpu}, "rows": rows}))
    now = [row("a", 0.84), row("b", 0.86), row("c", 0.1), row("d", 0.1, "float64"), row("e", None), row("f", 0.5)]
    now += [row("g", 0.03)]  # half as fast, though not five points less
    program = "from benchmarks.gpu_check.process import append\nappend({'planned': []})\n"
    program += "".join(f"append({{'row': {entry}}})\n" for entry in now)
    monkeypatch.setattr(
        bench, "module", lambda name: [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(ROOT)!r}]\n{program}"]
    )
    report = Report()
    bench.tables(Context(tmp_path, tmp_path, {"gpu": "Big Card"}, Deadline(60)), report)
    assert report.failed == [
        "op a float32: 0.84 of the floor, the committed results say 0.90",
        "op g float32: 0.03 of the floor, the committed results say 0.06",
    ]
    assert report.details["compared_rows"] == 6
    report = Report()
    bench.tables(Context(tmp_path, tmp_path, {"gpu": "New Card"}, Deadline(60)), report)
    assert (report.verdict, report.details["compared_rows"]) == ("passed", 0)


def test_tables_are_not_measured_with_a_module_that_was_not_built(tmp_path):
    report = Report()
    bench.tables(context(tmp_path, build="failed"), report)
    assert report.failed == ["tables: not measured: build failed"]


def test_a_missing_program_of_the_micro_benchmarks_is_a_failure(tmp_path):
    report = Report()
    bench.unknowns(context(tmp_path), report)
    assert "run the build stage first" in report.failed[0]


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        ({"copies": [{"exact": True}, {"exact": True}], "bit_products": None}, None),
        ({"bit_products": [{"exact": True}, {"columns": 128, "exact": False}]}, "bit_products.1: the results are"),
        ({"a": {"b": [{"exact": None}]}}, "a.b.0: the results are not exact"),
        ({"rereads": {"error": "no memory"}}, "rereads: no memory"),
    ],
)
def test_a_micro_benchmark_that_is_wrong_anywhere_has_failed(tmp_path, found, fault):
    program = build.unknowns_program(context(tmp_path))
    program.write_text(f"#!/bin/sh\necho '{json.dumps(found)}'\n")
    program.chmod(0o755)
    report = Report()
    bench.unknowns(context(tmp_path), report)
    assert [text.startswith(f"unknowns: {fault}") for text in report.failed] == ([] if fault is None else [True])
    assert report.details["unknowns"] == found


@pytest.mark.parametrize(("capability", "name"), [([9, 0], "9.0a"), ([8, 0], "8.0"), ([12, 0], "12.0")])
def test_the_build_is_for_the_visible_card(capability, name):
    assert build.architecture(capability) == name
    number = name.replace(".", "")
    assert f"arch=compute_{number},code=sm_{number}" in build.compile_command("nvcc", capability, Path("program"))


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc was not found")
@pytest.mark.parametrize(("capability", "options"), [([9, 0], ["-cubin"]), ([8, 0], [])])  # one host pass is enough
def test_the_micro_benchmarks_compile(tmp_path, capability, options):
    command = build.compile_command("nvcc", capability, tmp_path / "unknowns")
    finished = subprocess.run([*command, *options, "-Werror", "all-warnings"], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "unknowns").exists()
