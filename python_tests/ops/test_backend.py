"""Which kernels run: MDPROP_BACKEND, MDPROP_CPU_ISA, and what is said when compiled kernels are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from torch.torch_version import TorchVersion

from mdprop_ext.ops._register import _remedy

CALL = """
import torch, warnings
from mdprop_ext import ops
x = torch.rand(2, 3)
ops.pgd_step(x, x, x, norm="linf", step=0.1, radius=0.1)
"""
# Hides the compiled module, as in an installation that lacks it.
WITHOUT_EXTENSION = "import sys; sys.modules['mdprop_ext._C'] = None\n"


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        capture_output=True,
        text=True,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("MDPROP_")}, **environment},
    )


def last_line(result: subprocess.CompletedProcess[str]) -> str:
    return result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("backend", ["auto", "ext", "reference"])
def test_every_backend_works_without_a_warning(backend):
    result = run(CALL, MDPROP_BACKEND=backend)
    assert result.returncode == 0
    assert result.stderr == ""


def test_the_reference_backend_does_not_load_the_module():
    result = run(CALL + "import sys; print('mdprop_ext._C' in sys.modules)", MDPROP_BACKEND="reference")
    assert result.stdout.strip() == "False"


def test_auto_warns_once_an_op_when_the_module_is_missing():
    result = run(WITHOUT_EXTENSION + CALL + "ops.pgd_step(x, x, x, norm='linf', step=0.1, radius=0.1)\n")
    assert result.returncode == 0
    assert result.stderr.count("runs its slower reference on cpu") == 1
    assert "install the package again" in result.stderr


def test_ext_refuses_a_missing_module():
    result = run(WITHOUT_EXTENSION + CALL, MDPROP_BACKEND="ext")
    assert result.returncode != 0
    assert "BackendError: mdprop_ext.ops.pgd_step on cpu: MDPROP_BACKEND=ext forbids" in last_line(result)
    assert "the compiled kernels could not be loaded" in last_line(result)


def test_an_unknown_backend_is_named():
    result = run(CALL, MDPROP_BACKEND="fast")
    assert last_line(result) == "ValueError: MDPROP_BACKEND must be one of auto, ext, reference, got 'fast'"


@pytest.mark.parametrize("name", ["MDPROP_BACKEND", "MDPROP_CPU_ISA"])
def test_info_works_whatever_the_environment_asks_for(name):
    result = run("from mdprop_ext import info; info.main([])", **{name: "nonsense"})
    assert result.returncode == 0
    assert f"{name} must be one of" in result.stdout


def test_an_unknown_instruction_set_is_named():
    result = run(CALL, MDPROP_CPU_ISA="sse9")
    assert result.returncode != 0
    assert "MDPROP_CPU_ISA must be one of baseline, avx2, avx512, got sse9" in last_line(result)
    # Nor is there a reference to fall back to for what has no kernel.
    result = run("import torch, mdprop_ext.ops; torch.ops.mdprop._cuda_probe(torch.ones(2))", MDPROP_CPU_ISA="sse9")
    assert "BackendError: MDPROP_CPU_ISA must be one of baseline, avx2, avx512, got sse9" in last_line(result)


def test_the_remedy_fits_what_lies_in_the_package(tmp_path):
    assert _remedy(tmp_path) == (
        f"install the package, and leave the folder of its source if Python starts there (none are in {tmp_path})"
    )
    (tmp_path / "_C.cpython-38-x86_64-linux-gnu.so").touch()
    assert "_C.cpython-38-x86_64-linux-gnu.so belongs to another" in _remedy(tmp_path)
    (tmp_path / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}").touch()
    assert _remedy(tmp_path) == "install the package again"


def test_the_remedy_fits_the_machine_and_its_torch(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1+cu128"))
    assert _remedy(tmp_path) == "install torch 2.10 or later (this is 2.9.1+cu128)"
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.10.0+cu128"))
    assert "install the package" in _remedy(tmp_path)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "on Linux" in _remedy(tmp_path)


def test_what_is_said_of_the_source_alone_and_of_a_broken_module(tmp_path):
    source = Path(__file__).resolve().parents[2] / "mdprop_ext"
    shutil.copytree(source, tmp_path / "mdprop_ext", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    # The finder of an editable installation would find the module in another folder.
    here = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    here += "sys.meta_path = [finder for finder in sys.meta_path if 'editable' not in str(finder)]\n"
    result = run(here + CALL)
    assert result.returncode == 0
    assert "could not be loaded (No module named 'mdprop_ext._C'): install the package, and leave" in result.stderr
    (tmp_path / f"mdprop_ext/_C{sysconfig.get_config_var('EXT_SUFFIX')}").write_bytes(b"no module")
    line = last_line(run(here + CALL, MDPROP_BACKEND="ext"))
    assert "file too short): install the package again" in line


DIGEST = """
import hashlib, torch
from op_cases import OP_CASES
from mdprop_ext import _C
for case in OP_CASES:
    for dtype in case.dtypes:
        torch.manual_seed(0)
        digest = hashlib.sha256()
        for sample in case.samples(dtype):
            if sum(a.numel() for a in sample.args if isinstance(a, torch.Tensor)) > 1 << 18:
                continue
            for result in case.call(case.function, sample):
                digest.update(result.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        print(case.name, dtype, digest.hexdigest())
print(_C.build_info()["cpu_isa"])
"""


def test_every_instruction_set_gives_the_same_bits():
    from mdprop_ext import _C

    info = _C.build_info()
    available = info["cpu_isas"][: info["cpu_isas"].index(info["cpu_isa"]) + 1]
    path = os.pathsep.join(sys.path)
    outputs = {}
    for isa in available:
        result = run(DIGEST, MDPROP_CPU_ISA=isa, PYTHONPATH=path)
        assert result.returncode == 0, result.stderr
        *digests, ran = result.stdout.splitlines()
        assert ran == isa
        outputs[isa] = digests
    assert all(digests == outputs[available[0]] for digests in outputs.values())
