"""How ``python -m benchmarks.gpu_check`` runs its stages: choice, time, files, records, exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu_check import machine, process
from benchmarks.gpu_check.__main__ import STAGES, TOTAL_S, selected
from benchmarks.gpu_check.stages import GRACE_S, Context, Deadline, Report, Stage, exit_status, run_stages, write_json

ROOT = Path(__file__).resolve().parent.parent


def run(folder: Path, *stages: Stage) -> tuple[dict[str, str], dict[str, dict], list[str]]:
    """The verdicts of stages, their files, and the lines that were announced."""
    lines: list[str] = []
    verdicts = run_stages(
        stages, root=ROOT, out=folder / "out", work=folder / "work", facts={"gpu": "none"}, announce=lines.append
    )
    files = {path.stem: json.loads(path.read_text()) for path in (folder / "out").iterdir()}
    return verdicts, files, lines


def test_stages_are_chosen_in_their_own_order_with_their_budgets():
    def chosen(names, *budgets):
        stages, total = selected(names, budgets)
        return {stage.name: stage.seconds for stage in stages}, total

    assert list(chosen("bench, build")[0]) == ["build", "bench"]
    assert chosen("test,build", "test=7") == ({"build": STAGES[0].seconds, "test": 7}, TOTAL_S)
    assert chosen("bench") == ({"bench": TOTAL_S}, TOTAL_S)  # the last one takes what is left
    assert chosen("build,bench", "bench=900") == ({"build": 150, "bench": 900}, 1050)
    assert chosen("build,bench", "build=200") == ({"build": 200, "bench": TOTAL_S}, TOTAL_S)
    assert sum(stage.seconds for stage in STAGES) <= TOTAL_S
    assert TOTAL_S + GRACE_S <= 590  # what is left is for ending programs
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


def test_stages_share_one_clock(tmp_path):
    lefts = []

    def slow(given: Context) -> Report:
        lefts.append(given.deadline.left())
        time.sleep(1)
        return Report()

    stages = [Stage("a", 0.9, slow), Stage("b", 50, slow), Stage("c", 50, slow)]
    verdicts = run_stages(
        stages, root=ROOT, out=tmp_path / "out", work=tmp_path, facts={}, clock=Deadline(GRACE_S + 1.9)
    )
    assert verdicts == {"a": "passed", "b": "passed", "c": "cut off"}
    assert lefts[0] <= 0.9
    assert 0 < lefts[1] <= 0.9
    content = json.loads((tmp_path / "out/c.json").read_text())
    assert content["cut_off"] == ["the whole stage: no time was left for it"]
    assert content["budget_s"] == 0


def test_a_torch_that_does_not_answer_is_no_card(monkeypatch):
    monkeypatch.setattr(machine, "QUESTION", "import time; time.sleep(30)")
    monkeypatch.setattr(machine, "TIMEOUT_S", 0.2)
    facts = machine.facts_of_torch()
    assert (facts["cuda_available"], facts["error"]) == (False, "it gave no answer within 0 s")
    assert machine.obstacle(["Big Card"], facts)[1] == 1


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
