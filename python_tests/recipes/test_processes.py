from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from recipe_cases import write_folder

from mdprop_ext.recipes import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "python_tests")]),
    "OMP_NUM_THREADS": "1",
}
FILES = ["config.json", "log.jsonl", "metrics.json", "model.safetensors"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def output_of(command: list[str]) -> str:
    finished = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_two_processes_end_alike_and_write_once(tmp_path: Path) -> None:
    script = str(ROOT / "python_tests/parallel_training.py")
    output_of([*TWO, script, str(tmp_path / "two")])
    output_of([sys.executable, script, str(tmp_path / "one")])
    first, second = (json.loads((tmp_path / f"two-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["resumed"] == first["weights"]
    assert first["steps"] == [1, 2, 4]
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == FILES
    assert first["metrics"] == json.loads((tmp_path / "two" / "metrics.json").read_text())
    # With the pairs of all processes and no batch norm, two processes compute what one does.
    alone = json.loads((tmp_path / "one-0.json").read_text())
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert load_checkpoint(tmp_path / "two")[1].processes == 2


def test_torchrun_of_the_command(tmp_path: Path) -> None:
    data = ["--data", "folder", "--train", str(write_folder(tmp_path / "images")), "--image-size", "16"]
    short = ["--set", "steps=2", "--set", "classes_per_batch=4", "--set", "model=own_parts:make_model"]
    command = ["train", "--recipe", "plain", *data, *short, "--device", "cpu", "--out", str(tmp_path / "run")]
    printed = output_of([*TWO, "-m", "mdprop_ext.cli", *command])
    assert printed.count("plain: R@1 ") == 1
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 2
