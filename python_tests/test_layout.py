"""Every public op has all of its parts, under one name; files stay readable."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from op_cases import OP_CASES

ROOT = Path(__file__).resolve().parent.parent
STEMS = ("multi_batch_norm", "pgd_step", "hamming_topk", "knn_topk")
PARTS = (
    "csrc/{0}/{0}.h",
    "csrc/{0}/{0}_math.h",
    "csrc/{0}/{0}_cpu.cpp",
    "csrc/{0}/{0}_torch.cpp",
    "csrc/tests/test_{0}.cpp",
    "mdprop_ext/ops/{0}.py",
    "mdprop_ext/reference/{0}.py",
    "python_tests/op_case_{0}.py",
    "python_tests/oracles/{0}.py",
    "benchmarks/bench_{0}.py",
    "docs/ops/{0}.md",
)


def sources() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout: there is no list of the repository's files")
    suffixes = (".py", ".cpp", ".h", ".cu", ".cuh")
    return [ROOT / name for name in listed.stdout.splitlines() if name.endswith(suffixes) and (ROOT / name).exists()]


def test_the_ops_are_known_everywhere():
    from mdprop_ext import ops

    assert set(STEMS) <= {case.name for case in OP_CASES}  # small helper ops have rows of their own
    assert all(callable(getattr(ops, stem)) for stem in STEMS)
    assert set(STEMS) <= {path.parent.name for path in ROOT.glob("csrc/*/*_cpu.cpp")}
    assert {path.parent.name for path in ROOT.glob("csrc/*/*_cpu.cpp")} <= set(STEMS), "a kernel without a public op"


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_an_op_exists(stem, part):
    assert (ROOT / part.format(stem)).is_file()


@pytest.mark.parametrize("stem", STEMS)
def test_an_op_is_in_the_changelog(stem):
    assert stem in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("stem", STEMS)
def test_the_header_is_included_first(stem):
    for suffix in ("_cpu.cpp", "_torch.cpp"):
        text = (ROOT / f"csrc/{stem}/{stem}{suffix}").read_text()
        first = re.search(r'#include ["<](.*)[">]', text)
        assert first is not None
        assert first[1] == f"{stem}/{stem}.h"


def test_kernels_know_no_tensor_library():
    for path in [*ROOT.glob("csrc/*/*_cpu.cpp"), *ROOT.glob("csrc/*/*_cuda.cu"), *ROOT.glob("csrc/*/*_math.h")]:
        assert "torch/" not in path.read_text(), path


def test_only_the_stable_abi_is_used():
    for path in ROOT.glob("csrc/**/*"):
        if path.is_file():
            for header in re.findall(r"#include <(torch/[^>]*|ATen/[^>]*|c10/[^>]*)>", path.read_text()):
                assert header.startswith(
                    ("torch/csrc/stable/", "torch/headeronly/", "torch/csrc/inductor/aoti_torch/c/")
                ), path


def test_the_reference_imports_nothing_else_of_the_package():
    for path in (ROOT / "mdprop_ext/reference").glob("*.py"):
        assert not re.search(r"^\s*(from|import) mdprop_ext(?!\.reference)", path.read_text(), re.MULTILINE), path


def test_files_stay_short_or_say_why():
    for path in sources():
        lines = path.read_text().splitlines()
        assert len(lines) <= 300 or any("Longer than 300 lines" in line for line in lines[:20]), (path, len(lines))


def test_versions_agree():
    import mdprop_ext

    assert f'version = "{mdprop_ext.__version__}"' in (ROOT / "pyproject.toml").read_text()
