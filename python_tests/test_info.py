"""``python -m mdprop_ext.info`` and ``python -m mdprop_ext.selftest``."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import torch

from mdprop_ext import info, ops, selftest


def test_info_is_valid_json(capsys):
    assert info.main(["--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["torch"] == torch.__version__
    assert facts["ops"]["pgd_step"] == ["cpu"]
    assert facts["extension"]["cpu_isa"] in facts["extension"]["cpu_isas"]


def test_info_is_readable(capsys):
    assert info.main([]) == 0
    text = capsys.readouterr().out
    assert "multi_batch_norm" in text
    assert "built with torch" in text


def test_info_without_the_extension():
    command = "import sys; sys.modules['mdprop_ext._C'] = None; from mdprop_ext import info; info.main(['--json'])"
    result = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True, env=os.environ)
    facts = json.loads(result.stdout)
    assert facts["extension"] is None
    assert "install the package again" in facts["extension_error"]


def test_selftest_passes(capsys):
    state = torch.get_rng_state()
    assert selftest.main([]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("0 failed")
    assert torch.equal(torch.get_rng_state(), state)


def test_selftest_notices_a_wrong_kernel(capsys, monkeypatch):
    right = ops.pgd_step
    monkeypatch.setattr(ops, "pgd_step", lambda *args, **options: right(*args, **options) + 0.01)
    assert selftest.main([]) == 1
    assert "pgd_step" in next(line for line in capsys.readouterr().out.splitlines() if "failed for" in line)
