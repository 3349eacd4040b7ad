from __future__ import annotations

import sys
from pathlib import Path

import pytest
from recipe_cases import small_splits

from mdprop_ext.cli import main
from mdprop_ext.recipes import Plain, RunInterrupted, TrainConfig, run_training
from mdprop_ext.recipes.trainer import Record

CONFIG = TrainConfig(model="own_parts:make_model", steps=4, validate_every=2, checkpoint_every=2, classes_per_batch=4)


def test_curves_of_a_resumed_run_are_those_of_the_log(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def interrupt(record: Record) -> None:
        if record["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(RunInterrupted):
        run_training(Plain(), small_splits(), CONFIG, tmp_path, tensorboard=True, observe=interrupt)
    history = run_training(Plain(), small_splits(), CONFIG, tmp_path, tensorboard=True, resume=True).history
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {
        "train/loss",
        "train/learning_rate",
        "val/recall_at_1",
        "val/map_at_r",
        "val/best_recall_at_1",
    }
    for tag, name in (("train/loss", "loss"), ("val/map_at_r", "val_map_at_r")):
        shown = [(event.step, pytest.approx(event.value, rel=1e-6)) for event in events.Scalars(tag)]
        assert shown == [(record["step"], record[name]) for record in history if name in record]


def test_missing_tensorboard_is_one_sentence_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
    out = tmp_path / "out"
    assert main(["train", "--recipe", "plain", "--data", "digits", "--tensorboard", "--out", str(out)]) == 1
    printed = capsys.readouterr().err
    assert printed.endswith("run pip install 'mdprop_ext[log]'\n")
    assert printed.count("\n") == 1
    assert not out.exists()
