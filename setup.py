"""Builds the extension module with CMake and ninja; CMakeLists.txt holds the build itself."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import setuptools
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def tool(name: str) -> str:
    """The path of a build tool: the one beside this Python (as pip installs it), else the one on PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        sys.exit(f"mdprop_ext: {name} was not found: run pip install {name}")
    return found


def find_nvcc() -> str | None:
    """The CUDA compiler: CUDACXX, else the one on PATH, else the one of CUDA_HOME or of the toolkit's usual place."""
    toolkit = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which(f"{toolkit}/bin/nvcc")


def check_tools() -> None:
    """Stops with one sentence where the compiler or torch is missing."""
    compiler = os.environ.get("CXX") or ("c++" if shutil.which("c++") else "g++")
    if shutil.which(compiler.split()[0]) is None:
        sys.exit(
            "mdprop_ext: no C++ compiler was found: install one (for instance apt-get install g++) "
            "or set CXX to its path, then install again"
        )
    if importlib.util.find_spec("torch") is None:
        sys.exit(
            "mdprop_ext: torch is not installed in the build environment: run pip install torch first, then "
            "install again with --no-build-isolation"
        )
    if os.environ.get("MDPROP_CUDA", "auto") not in ("auto", "0", "1"):
        sys.exit(f"mdprop_ext: MDPROP_CUDA must be auto, 0 or 1, got {os.environ['MDPROP_CUDA']!r}")
    if os.environ.get("MDPROP_EMULATE", "0") != "0" and {"bdist_wheel", "editable_wheel"} & set(sys.argv):
        sys.exit(
            "mdprop_ext: MDPROP_EMULATE=1 builds kernels for tests, which no wheel may hold: run make test-emulated"
        )
    if os.environ.get("MDPROP_CUDA") == "1" and find_nvcc() is None:
        sys.exit(
            "mdprop_ext: MDPROP_CUDA=1 asks for CUDA kernels, but nvcc was not found: install the CUDA toolkit and put "
            "its bin folder on PATH, or set MDPROP_CUDA=0 for a CPU build"
        )


def default_jobs() -> int:
    """As many compilers as there are cores, and memory for: one takes less than 1 GB."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(len(os.sched_getaffinity(0)), memory >> 30))


def prepare_folder(folder: Path) -> None:
    """Makes the build folder, and empties one that was made elsewhere or by other compilers, which CMake would keep."""
    origin = "\n".join(map(str, (folder, sys.executable, os.environ.get("CXX"), find_nvcc())))
    record = folder / "origin.txt"
    if folder.exists() and not (record.exists() and record.read_text() == origin):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    record.write_text(origin)


class CMakeBuild(build_ext):
    """Configures and builds CMake's target _C straight into the place that setuptools expects."""

    def build_extension(self, ext: Extension) -> None:
        check_tools()
        output = Path(self.get_ext_fullpath(ext.name)).resolve()
        folder = Path(self.build_temp).resolve() / "cmake"
        prepare_folder(folder)
        configure = [
            tool("cmake"),
            *("-S", str(ROOT), "-B", str(folder), "-G", "Ninja"),
            f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
            f"-DPython3_EXECUTABLE={sys.executable}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output.parent}",
            f"-DMDPROP_CUDA={os.environ.get('MDPROP_CUDA', 'auto')}",
            f"-DMDPROP_EMULATE={os.environ.get('MDPROP_EMULATE', '0')}",
            f"-DMDPROP_SANITIZE={os.environ.get('MDPROP_SANITIZE', '0')}",
            f"-DMDPROP_VERSION={self.distribution.get_version()}",
        ]
        jobs = os.environ.get("MAX_JOBS") or str(default_jobs())
        compile_all = [tool("cmake"), "--build", str(folder), "--target", "_C", "--parallel", jobs]
        environment = {**os.environ, **({"CUDACXX": nvcc} if (nvcc := find_nvcc()) else {})}
        for command, hint in ((configure, ""), (compile_all, "; where a compiler was killed, set MAX_JOBS=1")):
            if subprocess.run(command, env=environment).returncode != 0:
                sys.exit(f"mdprop_ext: the build failed; the error is above{hint} (command: {' '.join(command)})")


if int(setuptools.__version__.partition(".")[0]) < 77:
    sys.exit(
        f"mdprop_ext: setuptools 77 or later is needed, this is {setuptools.__version__}: run "
        "pip install 'setuptools>=77', or build without --no-build-isolation"
    )
# Elsewhere there is nothing to build: every op runs its plain PyTorch reference.
EXTENSIONS = [Extension("mdprop_ext._C", sources=[])] if sys.platform == "linux" else []
setup(ext_modules=EXTENSIONS, cmdclass={"build_ext": CMakeBuild})
