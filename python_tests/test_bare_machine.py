"""What builds and runs on a machine without the packages that only development needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu_check import tests

ROOT = Path(__file__).resolve().parent.parent
DEVELOPMENT = ("hypothesis", "pybind11", "ruff", "mypy", "pytest_benchmark")
LIBRARIES = ("timm", "torchattacks", "faiss", "sklearn", "matplotlib", "PIL", "typer", "rich", "safetensors", "scipy")


def run_without(folder: Path, packages: tuple[str, ...], *command: str) -> subprocess.CompletedProcess[str]:
    """Runs Python as if the packages were not installed."""
    for name in packages:
        (folder / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}', name='{name}')\n")
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_the_tests_on_a_card_need_pytest_alone(tmp_path):
    # Without a card they are collected all the same; the contract table's have no parameter for one then.
    _, *options = tests.pytest_command()
    finished = run_without(tmp_path, DEVELOPMENT + LIBRARIES, *options, "--collect-only")
    assert finished.returncode == 0, finished.stdout
    assert "test_results_equal_those_of_the_cpu" in finished.stdout
    broken = run_without(tmp_path, DEVELOPMENT, *options, "python_tests/ops/test_knn_topk.py", "--collect-only")
    assert "No module named hypothesis" in broken.stdout  # so it was hidden indeed


@pytest.mark.parametrize("hidden", [(), ("pybind11",)])
def test_the_build_finds_headers_of_pybind11(tmp_path, hidden):
    finished = run_without(tmp_path, hidden, "cmake/python_paths.py")
    assert finished.returncode == 0, finished.stderr
    root, version, headers = finished.stdout.split(";")
    assert (Path(headers) / "pybind11/pybind11.h").exists()
    assert (headers == str(Path(root) / "include")) == bool(hidden)
    assert version


def test_measuring_needs_no_library(tmp_path):
    program = "from benchmarks.gpu_check import batch_norm_kernels, measure, small_calls; print(len(measure.plans()))"
    tests_too = f"import sys; sys.path.append({str(ROOT / 'python_tests')!r}); {program}"
    finished = run_without(tmp_path, DEVELOPMENT + LIBRARIES, "-c", tests_too)
    assert finished.stdout == "5\n", finished.stderr
