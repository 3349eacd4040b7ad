"""The comparison of CUDA builds with the committed record of their kernels."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "cmake"))
import kernel_record  # noqa: E402

KERNEL = "_ZN6mdprop39_GLOBAL__N__0fc0a7b5_4_a_cu_d2bd6c5c1kIfLi32ELb1EEEvPT_"
LOG = f"""
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{KERNEL}' for 'sm_80'
ptxas info    : Function properties for {KERNEL}
    16 bytes stack frame, 8 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 16 bytes cumulative stack size, 128 bytes smem, 372 bytes cmem[0]
ptxas info    : Compiling entry function 'plain' for 'sm_90a'
ptxas info    : Function properties for plain
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 0 barriers, 368 bytes cmem[0]
"""
SASS = f"""
Fatbin elf code:
arch = sm_80
        Function : {KERNEL}
        /*0080*/                   LDG.E.128.CONSTANT R4, [R2.64] ;
        /*0090*/                   STL [R1], R4 ;
Fatbin elf code:
arch = sm_90a
        Function : plain
        /*0080*/                   HMMA.16816.F32.BF16 R4, R4, R8, R12 ;
"""


def entry(**changes):
    return {"registers": 10, "spills": 0, "stack": 0, "shared": 0, "code": [], **changes}


def test_ptxas_output_gives_registers_spills_stack_and_shared_memory():
    found = kernel_record.parse_ptxas(LOG)
    assert found["sm_80"][KERNEL] == {"registers": 40, "spills": 8, "stack": 16, "shared": 128}
    assert found["sm_90a"]["plain"] == {"registers": 10, "spills": 0, "stack": 0, "shared": 0}


def test_machine_code_is_told_apart_by_kernel_and_architecture():
    code = {(architecture, kernel): text for architecture, kernel, text in kernel_record.parse_sass(SASS)}
    assert "LDG.E.128" in code["sm_80", KERNEL]
    assert "HMMA" in code["sm_90a", "plain"]
    assert "HMMA" not in code["sm_80", KERNEL]


@pytest.mark.parametrize(
    ("demangled", "short"),
    [
        ("void mdprop::(anonymous namespace)::k<float, (int)32, (bool)1>(float*)", "k<float, 32, true>"),
        ("mdprop::(anonymous namespace)::plain(mdprop::Args<float>)", "plain"),
        ("void mdprop::k<mdprop::BFloat16, (mdprop::Norm)1>(mdprop::Args)", "k<BFloat16, (Norm)1>"),
        ("mdprop::emulated::(anonymous namespace)::plain", "plain"),
    ],
)
def test_short_names_are_those_of_both_compilers(demangled, short):
    assert kernel_record.short_name(demangled) == short


def test_spills_stack_and_forbidden_instructions_are_faults():
    record = {"sm_80": {"a": entry(spills=4, faults=["local memory"]), "b": entry()}}
    assert kernel_record.faults(record) == ["a (sm_80): spills = 4", "a (sm_80): local memory"]


def test_differences_name_kernel_architecture_and_both_values():
    recorded = {"sm_80": {"a": entry(), "gone": entry()}, "sm_86": {"a": entry()}}
    built = {"sm_80": {"a": entry(registers=12, code=["tensor cores"]), "new": entry()}}
    assert kernel_record.differences(recorded, built) == [
        "a (sm_80): code [] -> ['tensor cores']",
        "a (sm_80): registers 10 -> 12",
        "gone (sm_80): not in the build",
        "new (sm_80): not in the record",
    ]


def test_the_committed_record_has_no_faults_and_covers_every_release_architecture():
    kernels = json.loads(kernel_record.RECORD.read_text())["kernels"]
    assert kernel_record.faults(kernels) == []
    assert set(kernels) == {f"sm_{name.replace('.', '')}" for name in kernel_record.RELEASED}
    assert len({tuple(sorted(entries)) for entries in kernels.values()}) == 1


@pytest.mark.parametrize(
    ("kernels", "feature"),
    [
        (r"knn_scan_kernel<\d+>", "tensor cores"),
        (r"knn_scan_kernel<\d+>", "asynchronous copies"),
        (r"hamming_scan_kernel<.*>", "population counts"),
        (r"hamming_scan_kernel<(1, true|2, .*)>", "16-byte loads"),
        (r"norm_\w+_kernel<(float, 4|BFloat16, 8|Half, 8)>", "16-byte loads"),
        (r"norm_(apply|gradient|resident|resident_gradient)_kernel<(float, 4|BFloat16, 8|Half, 8)>", "16-byte stores"),
        (r"pgd_(linf|sample)_kernel<.*>", "16-byte loads"),
        (r"pgd_(linf|sample)_kernel<.*Target<float, true> >", "16-byte stores"),
    ],
)
def test_machine_code_holds_what_was_meant(kernels, feature):
    for architecture, entries in json.loads(kernel_record.RECORD.read_text())["kernels"].items():
        meant = {kernel: entry["code"] for kernel, entry in entries.items() if re.fullmatch(kernels, kernel)}
        assert meant, architecture
        assert [kernel for kernel, code in meant.items() if feature not in code] == [], architecture


def test_coverage_names_the_kernel_that_no_test_runs(tmp_path, capsys):
    names = {
        kernel for kernels in json.loads(kernel_record.RECORD.read_text())["kernels"].values() for kernel in kernels
    }
    full = tmp_path / "coverage.txt"
    full.write_text("\n".join(names))
    assert kernel_record.check_coverage(full) == 0
    missing = sorted(names)[0]
    full.write_text("\n".join(names - {missing}))
    assert kernel_record.check_coverage(full) == 1
    assert f"{missing}: no test runs it" in capsys.readouterr().out
