from __future__ import annotations

import json
from pathlib import Path

import pytest
from recipe_cases import InterruptedPlain, small_splits

from mdprop_ext.recipes import (
    MDProp,
    Plain,
    RobustnessMeter,
    RunInterrupted,
    TrainConfig,
    load_checkpoint,
    robust_protocol,
    run_training,
)
from mdprop_ext.recipes.trainer import Record

CONFIG = TrainConfig(steps=3, validate_every=2, classes_per_batch=4)


def test_a_run_leaves_log_checkpoint_and_metrics(tmp_path: Path) -> None:
    out, splits = tmp_path / "deep" / "run", small_splits()
    result = run_training(MDProp(seed=2), splits, CONFIG, out, data={"name": "folder"})
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        "log.jsonl",
        "metrics.json",
        "model.safetensors",
    ]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics == result.metrics
    assert list(metrics) == ["recipe", "seed", "seconds", "test", "robust", "robust_grid"]
    assert (metrics["recipe"], metrics["seed"]) == ("mdprop", 2)
    assert {"recall_at_1", "map_at_r", "pi_ratio", "spectral_decay"} <= set(metrics["test"])
    assert {name: list(value) for name, value in metrics["robust"].items()} == {
        "st": ["recall_at_1"],
        "mt2": ["recall_at_1"],
        "mt5": ["recall_at_1"],
    }
    for row in metrics["robust_grid"]:
        assert list(row) == ["attack", "targets", "eps_255", "steps", "branch", "recall_at_1"]
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert log == result.history
    assert [record["step"] for record in log] == [1, 2, 3]

    model, description = load_checkpoint(out)
    assert description.data == {"name": "folder"}
    assert robust_protocol(RobustnessMeter(model, splits.test, seed=2)) == metrics["robust"]


def test_an_interrupted_run_saves_its_model_and_has_no_metrics(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("of an earlier run")

    def interrupt(record: Record) -> None:
        if record["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(RunInterrupted, match="interrupted at step 2: the model is saved in"):
        run_training(Plain(), small_splits(), CONFIG, tmp_path, observe=interrupt)
    assert load_checkpoint(tmp_path)[1].step == 2
    assert not (tmp_path / "metrics.json").exists()


def test_an_interrupt_before_the_first_step_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunInterrupted, match="interrupted before the first step: nothing was written"):
        run_training(InterruptedPlain(at=1), small_splits(), CONFIG, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_interrupted_evaluation_keeps_the_best_model(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(RunInterrupted, match="in the final evaluation: the model is saved in"):
        run_training(Plain(), small_splits(), CONFIG, tmp_path, observe_evaluation=interrupt)
    load_checkpoint(tmp_path)
    assert not (tmp_path / "metrics.json").exists()


def test_data_that_does_not_suit_the_model_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 16 pixels"):
        run_training(Plain(), small_splits(size=8), CONFIG, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_is_for_one_run_at_a_time(tmp_path: Path) -> None:
    refused = []

    def start_another(record: Record) -> None:
        before = {path: path.read_bytes() for path in out.iterdir()}
        for resume in (False, True):
            with pytest.raises(ValueError, match="out: expected a folder that no run is writing to, got"):
                run_training(Plain(), small_splits(), CONFIG, out, resume=resume)
        refused.append(before == {path: path.read_bytes() for path in out.iterdir()})
        raise KeyboardInterrupt

    out = tmp_path / "new"
    for resume in (False, True):  # a folder that the first step makes, and one that is there
        with pytest.raises(RunInterrupted):
            run_training(Plain(), small_splits(), CONFIG, out, resume=resume, observe=start_another)
    assert refused == [True, True]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match="file' is a file"):
            run_training(Plain(), small_splits(), CONFIG, out)
