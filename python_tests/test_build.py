"""What setup.py says when something that it needs is missing, and that the distributions are complete."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs a checkout of the source")


def build(tmp_path: Path, tools: tuple[str, ...], **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the build with nothing but the named tools on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in tools:
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not installed here")
        (folder / name).symlink_to(found)
    kept = {k: v for k, v in os.environ.items() if k not in ("CXX", "CUDACXX") and not k.startswith("MDPROP_")}
    return subprocess.run(
        [
            sys.executable,
            "setup.py",
            "-q",
            "build_ext",
            "--build-temp",
            str(tmp_path / "t"),
            "--build-lib",
            str(tmp_path),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**kept, "PATH": str(folder), **environment},
    )


def last_line(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


def test_no_compiler(tmp_path):
    line = last_line(build(tmp_path, ()))
    assert line.startswith("mdprop_ext: no C++ compiler was found: install one")


def test_an_empty_name_of_the_compiler_means_none(tmp_path):
    assert "no C++ compiler was found" in last_line(build(tmp_path, (), CXX=""))


def test_a_compiler_that_does_not_exist(tmp_path):
    assert "no C++ compiler was found" in last_line(build(tmp_path, ("c++",), CXX="/nowhere/g++"))


def test_cuda_wanted_without_nvcc(tmp_path):
    line = last_line(build(tmp_path, ("c++",), MDPROP_CUDA="1", CUDA_HOME="/nowhere"))
    assert line.startswith("mdprop_ext: MDPROP_CUDA=1 asks for CUDA kernels, but nvcc was not found: install")


def test_an_unknown_value_of_mdprop_cuda(tmp_path):
    assert last_line(build(tmp_path, ("c++",), MDPROP_CUDA="yes")) == (
        "mdprop_ext: MDPROP_CUDA must be auto, 0 or 1, got 'yes'"
    )


def run_setup(before: str = "", after: str = "") -> subprocess.CompletedProcess[str]:
    """Runs setup.py up to its call of setup(), with code before and after; ``names`` are what it defines."""
    keep = "setuptools.setup = lambda **options: print(len(options['ext_modules']))"
    imports = "import runpy, setuptools.command.build_ext, subprocess, sys"
    code = "\n".join((imports, keep, before, "names = runpy.run_path('setup.py')", after))
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_an_old_setuptools_is_named():
    line = last_line(run_setup("setuptools.__version__ = '65.5.0'"))
    assert line.startswith("mdprop_ext: setuptools 77 or later is needed, this is 65.5.0: run pip install")


@pytest.mark.parametrize(("platform", "extensions"), [("linux", "1"), ("darwin", "0"), ("win32", "0")])
def test_only_linux_builds_kernels(platform, extensions):
    assert run_setup(f"sys.platform = '{platform}'").stdout.strip() == extensions


def test_a_build_folder_of_another_place_or_compiler_is_emptied(tmp_path):
    leftover = tmp_path / "here/CMakeCache.txt"

    def prepare(folder: str, compiler: str) -> bool:
        after = f"import os, pathlib; os.environ['CXX'] = '{compiler}'\n"
        after += f"names['prepare_folder'](pathlib.Path({str(tmp_path)!r}) / '{folder}')"
        assert run_setup(after=after).returncode == 0
        return (tmp_path / folder / leftover.name).exists()

    assert not prepare("here", "g++")
    leftover.touch()
    assert prepare("here", "g++")
    assert not prepare("here", "clang++")
    leftover.touch()
    (tmp_path / "here").rename(tmp_path / "there")
    assert not prepare("there", "clang++")


def test_compilers_share_the_memory():
    after = "import os\nos.sysconf = lambda name: {'SC_PAGE_SIZE': 4096}.get(name, int(%g * 2**30) // 4096)\n"
    after += "os.sched_getaffinity = lambda process: range(8)\nprint(names['default_jobs']())"
    jobs = [int(run_setup(after=after % gigabytes).stdout.split()[-1]) for gigabytes in (1, 7, 64)]
    assert jobs == [1, 7, 8]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("8.0 9.0a+PTX", "80-real;90a-real;90a-virtual"),
        ("8.6;12.0+PTX", "86-real;120-real;120-virtual"),
        ("7.5", "asks for CUDA architecture 7.5, but the kernels need 8.0 or later"),
        ("Hopper", "must hold numbers such as 8.6, 9.0a or 12.0+PTX, got Hopper"),
        ("90", "must hold numbers such as 8.6, 9.0a or 12.0+PTX, got 90"),
    ],
)
def test_architectures(tmp_path, names, expected):
    cmake = Path(sys.executable).with_name("cmake")
    found = str(cmake) if cmake.exists() else shutil.which("cmake")
    if found is None:
        pytest.skip("cmake is not installed here")
    script = tmp_path / "architectures.cmake"
    script.write_text(
        f'set(MDPROP_CUDA "0")\ninclude({ROOT}/cmake/Cuda.cmake)\n'
        f'mdprop_cuda_architectures("{names}" result)\nmessage(STATUS "${{result}}")\n'
    )
    result = subprocess.run([found, "-P", script], capture_output=True, text=True)
    assert expected in " ".join((result.stdout + result.stderr).split())


def test_any_torch_from_the_oldest_on_will_do():
    text = (ROOT / "pyproject.toml").read_text()
    assert 'dependencies = ["torch>=2.10", "numpy"]' in text  # no upper bound: pip leaves the installed torch alone


def test_the_source_distribution_is_complete(tmp_path):
    copy = tmp_path / "source"
    ignored = shutil.ignore_patterns(".venv", ".git", "build", "runs", "*.so", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, copy, ignore=ignored)
    command = [sys.executable, "setup.py", "-q", "sdist", "--dist-dir", str(tmp_path)]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = [
        *ROOT.glob("csrc/*/*.[ch]*"),
        *ROOT.glob("csrc/*/*.cu"),
        *ROOT.glob("cmake/*"),
        *ROOT.glob("mdprop_ext/**/*.py"),
    ]
    missing = {
        str(path.relative_to(ROOT)) for path in wanted if "/tests/" not in str(path) and "__pycache__" not in str(path)
    } - names
    assert not missing
    assert {"CMakeLists.txt", "setup.py", "pyproject.toml", "LICENSE", "README.md", "mdprop_ext/py.typed"} <= names


def test_the_stub_names_what_the_module_has():
    from mdprop_ext import _C

    stub = (ROOT / "mdprop_ext/_C.pyi").read_text()
    assert {name for name in dir(_C) if not name.startswith("_")} == {"build_info"}
    assert all(f"    {key}:" in stub for key in _C.build_info())


def test_the_installed_module_has_no_path_into_the_build():
    from mdprop_ext import _C

    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("readelf is not installed here")
    dynamic = subprocess.run([readelf, "-d", _C.__file__], capture_output=True, text=True, check=True).stdout
    assert "RUNPATH" not in dynamic
    assert "RPATH" not in dynamic
    assert "libtorch.so" in dynamic
