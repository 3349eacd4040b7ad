"""``python -m mdprop_ext.info`` and ``python -m mdprop_ext.selftest``."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys

import pytest
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


CUDA_BUILD = {"cuda": "13.0", "cuda_architectures": ["80-real", "90a-real"]}


def test_nothing_is_missing_without_a_card():
    assert info.missing({"cuda": None, "cuda_architectures": []}, None, []) == []
    assert info.missing(CUDA_BUILD, "12.8", []) == []


def test_a_build_without_cuda_is_named_where_there_is_a_card():
    (sentence,) = info.missing({"cuda": None, "cuda_architectures": []}, "12.8", ["9.0"])
    assert sentence.startswith("this build has no CUDA kernels: install it again")


def test_a_torch_without_cuda_is_named():
    (sentence,) = info.missing(CUDA_BUILD, None, [])
    assert "this torch is built without CUDA" in sentence


def test_each_card_without_an_architecture_is_named_once():
    sentences = info.missing(CUDA_BUILD, "13.0", ["12.0", "8.6", "9.0", "12.0", "7.5"])
    assert [sentence.partition(",")[0].split()[-1] for sentence in sentences] == ["12.0", "7.5"]
    assert "only for 80-real 90a-real" in sentences[0]
    assert "TORCH_CUDA_ARCH_LIST=12.0" in sentences[0]


@pytest.mark.parametrize(
    ("architecture", "capabilities"),
    [
        ("80-real", ["8.0", "8.6", "8.9"]),
        ("86-real", ["8.6", "8.9"]),
        ("80-virtual", ["8.0", "8.6", "8.9", "9.0", "10.0", "12.0"]),
        ("90a-real", ["9.0"]),
        ("90a-virtual", ["9.0"]),
        ("100-real", ["10.0"]),
        ("100f-real", ["10.0"]),
    ],
)
def test_which_cards_an_architecture_serves(architecture, capabilities):
    cards = ["7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0"]
    assert [card for card in cards if info.runs_on(architecture, card)] == capabilities


def test_info_of_a_build_whose_kernels_are_not_wanted():
    environment = {**os.environ, "MDPROP_BACKEND": "reference"}
    command = [sys.executable, "-m", "mdprop_ext.info", "--json"]
    facts = json.loads(subprocess.run(command, capture_output=True, check=True, env=environment).stdout)
    assert facts["missing"] == ["MDPROP_BACKEND=reference asks for the plain PyTorch implementations"]
    assert set(map(tuple, facts["ops"].values())) == {()}


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


def test_selftest_is_a_program(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["selftest", "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(selftest.__file__, run_name="__main__")
    assert end.value.code == 0
    assert "python -m mdprop_ext.selftest" in capsys.readouterr().out
