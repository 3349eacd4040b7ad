"""The memory of retrieval, measured in processes of their own, and what the documents say of it and of ties."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import hamming_ties, retrieval_memory

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "docs/guides/metrics.md"
RESULT = ROOT / "benchmarks/results/xeon-emerald-rapids-2-cores/retrieval_memory.json"
MIB = 2**20


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell the size of a process")
@pytest.mark.parametrize(
    ("name", "items", "most"),
    [
        ("retrieval_metrics", 12_000, 80 * MIB),  # one byte a pair would be 137 MiB
        ("retrieval_metrics of whole rankings", 6_000, 160 * MIB),  # the ranked indices of all would be 275 MiB
        ("hamming_metrics", 12_000, 80 * MIB),
    ],
)
def test_no_matrix_of_all_pairs_is_held(name, items, most):
    row = retrieval_memory.measure_apart(name, items)
    assert row["peak_bytes_beyond"] < most
    assert 0 < row["result"][next(iter(row["result"]))] < 1


def test_classes_are_those_of_the_large_set():
    sizes = retrieval_memory.class_sizes(retrieval_memory.ITEMS, retrieval_memory.CLASSES)
    assert int(sizes.sum()) == 60_502
    assert (int(sizes.min()), int(sizes.max()), len(sizes)) == (2, 12, 11_316)


def test_the_large_set_took_less_than_a_gibibyte():
    result = json.loads(RESULT.read_text())
    assert (result["items"], result["classes"], result["dim"]) == (60_502, 11_316, 128)
    assert {row["measure"] for row in result["measurements"]} == set(retrieval_memory.MEASURES)
    lines = ["| measure | MiB beyond embeddings, codes and labels |", "| --- | ---: |"]
    for row in result["measurements"]:
        assert row["peak_bytes_beyond"] < 1024 * MIB
        lines.append(f"| `{row['measure']}` | {row['peak_bytes_beyond'] / MIB:.0f} |")
    assert "\n".join(lines) in GUIDE.read_text(), "\n".join(lines)


def test_the_guide_shows_the_effect_of_ties():
    pytest.importorskip("sklearn")
    table = hamming_ties.table()
    assert table in GUIDE.read_text(), table
