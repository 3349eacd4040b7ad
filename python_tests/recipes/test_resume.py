from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_cases import small_splits

from mdprop_ext.data import Splits
from mdprop_ext.recipes import (
    RECIPES,
    MDProp,
    Plain,
    RunInterrupted,
    RunResult,
    TrainConfig,
    recipe_class,
    run_training,
)
from mdprop_ext.recipes.trainer import Record

ROOT = Path(__file__).resolve().parents[2]
OPTIONS: dict[str, Any] = {
    "model": "own_parts:make_model",
    "embedding_dim": 8,
    "steps": 5,
    "classes_per_batch": 4,
    "validate_every": 2,
    "checkpoint_every": 2,
}
CONFIG = TrainConfig(**OPTIONS)


def run(out: Path, recipe: Any = None, config: TrainConfig = CONFIG, **options: Any) -> RunResult:
    return run_training(recipe or MDProp(seed=2), options.pop("splits", small_splits()), config, out, **options)


def interrupted(out: Path, recipe: Any = None, config: TrainConfig = CONFIG, *, at: int = 3) -> None:
    """A run that Ctrl-C ends after step ``at``."""

    def interrupt(record: Record) -> None:
        if record["step"] == at:
            raise KeyboardInterrupt

    with pytest.raises(RunInterrupted):
        run(out, recipe, config, observe=interrupt)


def remains(out: Path) -> dict[str, Any]:
    """What a run leaves, without the time that it took."""
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    metrics = json.loads((out / "metrics.json").read_text())
    for record in (*log, metrics):
        del record["seconds"]
    return {
        "files": sorted(path.name for path in out.iterdir()),
        "weights": (out / "model.safetensors").read_bytes(),
        "config": (out / "config.json").read_bytes(),
        "log": log,
        "metrics": metrics,
    }


def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    search_path = os.pathsep.join([str(ROOT), str(ROOT / "python_tests")])
    fired = subprocess.run(
        [sys.executable, str(ROOT / "python_tests/killed_training.py"), str(tmp_path), "0"],
        env={**os.environ, "PYTHONPATH": search_path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert fired.returncode == 0, fired.stderr
    assert min(json.loads(fired.stdout).values()) >= 1
    assert remains(tmp_path / "fire") == remains(tmp_path / "peace")


@pytest.mark.parametrize("name", [*RECIPES, "own_parts:Own"])
def test_every_recipe_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    run(tmp_path / "whole", recipe_class(name)(seed=2))
    interrupted(tmp_path / "parts", recipe_class(name)(seed=2))
    run(tmp_path / "parts", recipe_class(name)(seed=2), resume=True)
    assert remains(tmp_path / "parts") == remains(tmp_path / "whole")


@pytest.mark.parametrize(
    "options",
    [
        {"amp": "bf16", "schedule": "linear"},
        {"accumulate": 3, "clip_norm": 0.1, "criterion": "own_parts:Proxies"},
        {"criterion": "proxy_anchor"},
        {"model": "conv4", "validate_every": 1, "patience": 1, "learning_rate": 0.3, "steps": 50},
    ],
)
def test_every_option_goes_on_bit_for_bit(options: dict[str, Any], tmp_path: Path) -> None:
    config = TrainConfig(**{**OPTIONS, **options})
    run(tmp_path / "whole", Plain(), config)
    interrupted(tmp_path / "parts", Plain(), config, at=1)
    run(tmp_path / "parts", Plain(), config, resume=True)
    assert remains(tmp_path / "parts") == remains(tmp_path / "whole")


def test_only_the_evaluation_is_left(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    def fail(record: Record) -> None:
        raise AssertionError("trained again")

    run(tmp_path / "whole")
    with pytest.raises(RunInterrupted, match="in the final evaluation"):
        run(tmp_path / "parts", observe_evaluation=interrupt)
    run(tmp_path / "parts", resume=True, observe=fail)
    assert remains(tmp_path / "parts") == remains(tmp_path / "whole")


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    first = run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = run(tmp_path, resume=True)
    assert (again.metrics, again.history) == (first.metrics, first.history)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="got seed 3 instead of 2"):
        run(tmp_path, MDProp(seed=3), resume=True)


def test_without_resume_a_run_starts_anew(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    interrupted(tmp_path / "parts")
    run(tmp_path / "parts")
    assert remains(tmp_path / "parts") == remains(tmp_path / "whole")


def test_a_new_run_in_the_folder_of_an_unfinished_one_cannot_go_on_with_that(tmp_path: Path) -> None:
    def die(record: Record) -> None:
        raise MemoryError

    interrupted(tmp_path)
    with pytest.raises(MemoryError):
        run(tmp_path, observe=die)
    assert not (tmp_path / "training_state.safetensors").exists()
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1


def test_an_empty_folder_is_a_new_run(tmp_path: Path) -> None:
    assert len(run(tmp_path / "new", resume=True).history) == 5


def test_what_a_killed_writer_left_is_cleaned_up(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    interrupted(tmp_path / "parts", at=2)
    ours = tmp_path / "parts" / ".model.safetensors.0123abcd.unfinished"
    ours.write_bytes(b"half")
    with (tmp_path / "parts" / "log.jsonl").open("a") as log:
        log.write('{"step": 3, "lo')
    run(tmp_path / "parts", resume=True)
    assert remains(tmp_path / "parts") == remains(tmp_path / "whole")


def test_a_full_disk_names_the_file_and_leaves_a_run_to_resume(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(record: Record) -> None:
        if record["step"] == 4:  # the state of step 2 is there, that of step 4 has no room
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))

    run(tmp_path / "whole")
    try:
        with pytest.raises(OSError, match=r"parts/training_state\.safetensors"):
            run(tmp_path / "parts", observe=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {"log.jsonl", "training_state.safetensors"}
    run(tmp_path / "parts", resume=True)
    assert remains(tmp_path / "parts") == remains(tmp_path / "whole")


def changed_images() -> Splits:
    splits = small_splits()
    splits.val.images[0, 0, 0, 0] ^= 1
    return splits


@pytest.mark.parametrize(
    ("recipe", "config", "splits", "message"),
    [
        (Plain(seed=2), {}, None, "got recipe 'plain' instead of 'mdprop'"),
        (MDProp(seed=4), {}, None, "got seed 4 instead of 2"),
        (
            recipe_class("mdprop")(recipe_class("mdprop").config_class(mt_targets=3), seed=2),
            {},
            None,
            "mt_targets 3 ins",
        ),
        (None, {"learning_rate": 0.1}, None, "got learning_rate 0.1 instead of 0.001"),
        (
            MDProp(criterion=torch.nn.Identity(), seed=2),
            {},
            None,
            "got criterion 'Identity' instead of 'MultiSimilarity",
        ),
        (None, {}, changed_images(), "got other images to val on"),
    ],
)
def test_another_run_is_refused(
    recipe: Any, config: dict[str, Any], splits: Splits | None, message: str, tmp_path: Path
) -> None:
    interrupted(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=message):
        run(tmp_path, recipe, TrainConfig(**{**OPTIONS, **config}), resume=True, splits=splits or small_splits())
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    interrupted(tmp_path)
    state, log = tmp_path / "training_state.safetensors", tmp_path / "log.jsonl"
    content, lines = state.read_bytes(), log.read_text()
    log.write_text(lines.splitlines(keepends=True)[0])
    with pytest.raises(ValueError, match="ends at step 1, before the state to resume from"):
        run(tmp_path, resume=True)
    log.write_text(lines)
    for damaged in (b"", content[:200], content[:-1]):
        state.write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged or of another version"):
            run(tmp_path, resume=True)
    state.write_bytes(content)
    run(tmp_path, resume=True)
