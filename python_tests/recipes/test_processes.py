from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from parallel_training import interrupted_steps, joined_losses
from recipe_cases import write_folder

from mdprop_ext.recipes import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "python_tests")]),
    "OMP_NUM_THREADS": "1",
}
FILES = ["config.json", "log.jsonl", "metrics.json", "model.safetensors"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes of ``torchrun`` leave: ``two``, a run from Python, and ``command``, one of the command."""
    folder = tmp_path_factory.mktemp("processes")
    data = ["--data", "folder", "--train", str(write_folder(folder / "images")), "--image-size", "16"]
    short = ["--set", "steps=2", "--set", "classes_per_batch=4", "--set", "model=own_parts:make_model"]
    command = ["train", "--recipe", "plain", *data, *short, "--device", "cpu", "--out", str(folder / "command")]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    finished = subprocess.run(
        [*torchrun, str(ROOT / "python_tests" / "parallel_training.py"), str(folder), *command],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=ROOT,
    )
    assert finished.returncode == 0, finished.stderr
    (folder / "printed").write_text(finished.stdout)
    return folder


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_two_processes_end_alike_and_write_once(folder: Path, outcomes: list[dict[str, Any]]) -> None:
    first, second = outcomes
    assert first == second
    assert first["resumed"] == first["weights"]
    assert first["steps"] == [1, 2, 4]
    assert len(set(first["statistics"])) == 4, "every step begins with the first one's, which training moves"
    assert sorted(path.name for path in (folder / "two").iterdir()) == FILES
    assert first["metrics"] == json.loads((folder / "two" / "metrics.json").read_text())
    assert load_checkpoint(folder / "two")[1].processes == 2


def test_gradients_are_means_over_the_processes(outcomes: list[dict[str, Any]]) -> None:
    assert [outcome["gradients"] for outcome in outcomes] == [[[1.5, 2.5], [2.0, 4.0]]] * 2


def test_only_one_process_alone_saves_when_interrupted(outcomes: list[dict[str, Any]]) -> None:
    # The other one may be in the next step, and the two states would not belong together.
    assert [outcome["steps_of_interrupted"] for outcome in outcomes] == [[1, 2], [1, 2]]
    assert interrupted_steps() == [1, 2, 3]


def test_the_first_process_tells_what_an_interrupted_run_leaves(folder: Path, outcomes: list[dict[str, Any]]) -> None:
    out = folder / "interrupted"
    saved = f"interrupted at step 2: the model is saved in '{out}', --resume goes on"
    assert outcomes[0]["interrupted"] == [saved, "interrupted"]
    assert json.loads((out / "config.json").read_text())["step"] == 2


def test_two_processes_compute_what_one_does(outcomes: list[dict[str, Any]]) -> None:
    # With the pairs of all processes and no batch norm.
    assert outcomes[0]["losses"] == pytest.approx(joined_losses(), rel=1e-4)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs the process file system of Linux")
def test_nothing_of_the_group_is_left(outcomes: list[dict[str, Any]]) -> None:
    assert [outcome["threads"] for outcome in outcomes] == [[], []]


def test_torchrun_of_the_command(folder: Path, outcomes: list[dict[str, Any]]) -> None:
    assert [outcome["status"] for outcome in outcomes] == [0, 0]
    assert (folder / "printed").read_text().count("plain: R@1 ") == 1
    assert len((folder / "command" / "log.jsonl").read_text().splitlines()) == 2
