"""The C++ code of the guide to a new op compiles as it stands there, and its test passes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-fvisibility=hidden")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A folder with the files of the guide, at the paths that their first lines give."""
    folder = tmp_path_factory.mktemp("op")
    for path, code in re.findall(
        r"^```cpp\n// (\S+)\n(.*?)^```", (ROOT / "docs/guides/add_an_op.md").read_text(), re.M | re.S
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(code)
    return folder


def compile_with(sources: Path, *arguments: object) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler is installed here")
    command = [compiler, *OPTIONS, "-I", sources / "csrc", "-I", ROOT / "csrc", *arguments]
    finished = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_the_kernel_passes_its_test(sources, tmp_path):
    kernel, test = (
        sources / "csrc/squared_length/squared_length_cpu.cpp",
        sources / "csrc/tests/test_squared_length.cpp",
    )
    common = (ROOT / "csrc/tests/parallel_threads.cpp", ROOT / "csrc/common/cpu_isa.cpp")
    compile_with(sources, kernel, test, *common, "-pthread", "-o", tmp_path / "test")
    output = subprocess.run([tmp_path / "test"], capture_output=True, text=True)
    assert output.stdout == "70000 checks, 0 failed\n"


def test_the_registration_compiles(sources):
    command = [sys.executable, str(ROOT / "cmake/python_paths.py")]
    torch = subprocess.run(command, capture_output=True, text=True, check=True).stdout.partition(";")[0]
    options = ("-DTORCH_TARGET_VERSION=0x020a000000000000ULL", "-DTORCH_STABLE_ONLY", "-isystem", f"{torch}/include")
    compile_with(sources, "-fsyntax-only", *options, sources / "csrc/squared_length/squared_length_torch.cpp")


def test_the_cuda_kernel_compiles_for_the_emulation(sources):
    emulation = ("-DMDPROP_EMULATE", "-DMDPROP_ISA=emulated", "-I", ROOT / "csrc/emulation/include")
    kernel = sources / "csrc/squared_length/squared_length_cuda.cu"
    compile_with(sources, *emulation, "-Wno-unused-function", "-fsyntax-only", "-xc++", kernel)
