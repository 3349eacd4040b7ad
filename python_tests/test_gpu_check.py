"""What ``python -m benchmarks.gpu_check`` decides without a GPU: stages, time, records, verdicts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from op_cases import OP_CASES

from benchmarks.gpu_check import bench, build, machine, process, sanitize, small_calls, tests
from benchmarks.gpu_check.__main__ import STAGES, selected
from benchmarks.gpu_check.stages import Context, Deadline, Report, Stage, exit_status, run_stages, write_json

ROOT = Path(__file__).resolve().parent.parent


def context(folder: Path, seconds: float = 60, **verdicts: str) -> Context:
    return Context(ROOT, folder, {"capability": [9, 0]}, Deadline(seconds), verdicts)


def run(folder: Path, *stages: Stage) -> tuple[dict[str, str], dict[str, dict], list[str]]:
    """The verdicts of stages, their files, and the lines that were announced."""
    lines: list[str] = []
    verdicts = run_stages(
        stages, root=ROOT, out=folder / "out", work=folder / "work", facts={"gpu": "none"}, announce=lines.append
    )
    files = {path.stem: json.loads(path.read_text()) for path in (folder / "out").iterdir()}
    return verdicts, files, lines


def test_stages_are_chosen_in_their_own_order_with_their_budgets():
    assert [stage.name for stage in selected("bench, build", [])] == ["build", "bench"]
    assert [stage.seconds for stage in selected("test,build", ["test=7"])] == [STAGES[0].seconds, 7]
    assert sum(stage.seconds for stage in STAGES) + process.GRACE_S * len(STAGES) <= 600
    for names, budgets, message in (
        ("build,other", [], "unknown stage 'other': expected some of build,test,sanitize,bench"),
        ("", [], "unknown stage ''"),
        ("build", ["other=3"], "unknown stage in budget 'other=3'"),
        ("build", ["build=soon"], "budget 'build=soon': expected STAGE=SECONDS"),
        ("build", ["build=0"], "more than 0 seconds"),
    ):
        with pytest.raises(ValueError, match=message):
            selected(names, budgets)


def test_without_a_gpu_one_sentence_and_nothing_else(tmp_path):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PATH": str(tmp_path)}
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--out", str(tmp_path / "out")]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("skipped: neither nvidia-smi nor torch.cuda finds a GPU")
    assert finished.stdout.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_only_the_absence_of_a_gpu_is_no_failure():
    blind = {"torch": "2.13.0+cpu", "cuda_available": False}
    assert machine.obstacle([], {**blind, "cuda_available": True}) is None
    assert machine.obstacle([], blind)[1] == 0
    text, status = machine.obstacle(["Big Card"], blind)
    assert (status, "nvidia-smi lists Big Card, but torch 2.13.0+cpu" in text) == (1, True)
    without_torch = {"cuda_available": False, "error": "No module named 'torch'"}
    assert machine.obstacle([], without_torch)[1] == 0
    text, status = machine.obstacle(["Big Card"], without_torch)
    assert (status, "cannot import torch: No module named" in text) == (1, True)


def test_every_stage_has_its_file_before_the_next_begins(tmp_path):
    def first(given: Context) -> Report:
        assert given.deadline.left() > 4
        return Report({"figure": 3, "summary": "three"})

    def second(given: Context) -> Report:
        assert given.verdicts == {"first": "passed"}
        return Report({"seen": json.loads((tmp_path / "out/first.json").read_text())["figure"]})

    verdicts, files, lines = run(tmp_path, Stage("first", 5, first), Stage("second", 5, second))
    assert verdicts == {"first": "passed", "second": "passed"}
    assert files["second"]["seen"] == 3
    assert files["first"].items() >= {"verdict": "passed", "budget_s": 5, "machine": {"gpu": "none"}}.items()
    assert lines[0].split()[0] == "first"
    assert lines[0].endswith("three")
    assert exit_status(verdicts) == 0


def test_a_stage_that_fails_is_recorded_and_the_next_ones_run_where_they_can(tmp_path):
    def broken(given: Context) -> Report:
        raise OSError("the disk is full")

    verdicts, files, lines = run(
        tmp_path,
        Stage("broken", 5, broken),
        Stage("dependent", 5, broken, needs=("broken",)),
        Stage("other", 5, lambda given: Report(), needs=("absent",)),
    )
    assert verdicts == {"broken": "failed", "dependent": "skipped", "other": "passed"}
    assert files["broken"]["failed"] == ["OSError: the disk is full"]
    assert files["dependent"]["failed"] == ["not run: broken failed"]
    assert "OSError: the disk is full" in lines[0]
    assert exit_status(verdicts) == 1


def test_exit_status_tells_failure_from_lack_of_time():
    assert Report(cut_off=["one"]).verdict == "cut off"
    assert Report(cut_off=["one"], failed=["two"]).verdict == "failed"
    assert exit_status({"a": "passed", "b": "cut off"}) == 3
    assert exit_status({"a": "failed", "b": "cut off"}) == 1


def test_a_file_is_old_or_new_but_never_half(tmp_path):
    path = tmp_path / "stage.json"
    write_json(path, {"kept": 1})
    with pytest.raises(TypeError):
        write_json(path, {"lost": object()})
    assert json.loads(path.read_text()) == {"kept": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_program_is_cut_off_with_all_that_it_started(tmp_path):
    # The child would write after two seconds.
    command = ["bash", "-c", f"(sleep 2; touch {tmp_path}/late) & echo begun; sleep 30"]
    finished = process.run_limited(command, seconds=0.5, cwd=tmp_path)
    assert (finished.status, finished.tail) == (None, "begun")
    assert finished.seconds < 20
    time.sleep(2)
    assert not (tmp_path / "late").exists()
    assert process.run_limited(["bash", "-c", "echo error >&2; exit 4"], seconds=9, cwd=tmp_path).status == 4


def test_a_record_survives_the_end_of_its_program(tmp_path):
    program = "from benchmarks.gpu_check.process import append; import os; append({'row': 1}); os._exit(9)"
    record = tmp_path / "record"
    finished = process.run_recorded([sys.executable, "-c", program], record=record, seconds=30, cwd=ROOT)
    assert finished.status == 9
    with record.open("a") as file:
        file.write('{"row": 2')
    assert process.read_record(record) == [{"row": 1}]
    assert process.read_record(tmp_path / "absent") == []


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


CLEAN = "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n"
BAD = "========= COMPUTE-SANITIZER\n========= Invalid __global__ write of size 4\n========= ERROR SUMMARY: 2 errors\n"
RACE = "========= COMPUTE-SANITIZER\n========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n"
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


def test_rows_are_kept_whatever_ends_the_measurement():
    entries = [
        {"planned": ["a", "b", "c", "d"]}, {"ceilings": {"copy_bytes_per_s": 1.0}}, {"started": "a"},
        {"row": {"op": "pgd_step", "case": "a"}, "absent": {"compile": "no compiler"}}, {"started": "b"},
        {"failed": "b", "message": "another result"}, {"started": "c"},
    ]  # fmt: skip
    report = Report()
    bench.enter_tables(report, entries, process.Finished(None, "", 9))
    assert [row["case"] for row in report.details["rows"]] == ["a"]
    assert report.details["absent"] == {"pgd_step a": {"compile": "no compiler"}}
    assert report.details["ceilings"] == {"copy_bytes_per_s": 1.0}
    assert report.failed == ["b: another result"]
    assert report.cut_off == ["d", "c: ended with None"]
    crashed = Report()
    bench.enter_tables(crashed, entries[:3], process.Finished(-6, "abort", 9))
    assert crashed.failed == ["a: ended with -6"]


def test_tables_are_not_measured_with_a_module_that_was_not_built(tmp_path):
    report = Report()
    bench.tables(context(tmp_path, build="failed"), report)
    assert report.failed == ["tables: not measured: build failed"]


def test_a_missing_program_of_the_micro_benchmarks_is_a_failure(tmp_path):
    report = Report()
    bench.unknowns(context(tmp_path), report)
    assert "run the build stage first" in report.failed[0]


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
