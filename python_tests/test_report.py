"""The documents' tables, made from results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import quotes, report

ROOT = Path(__file__).resolve().parent.parent


def row(op="pgd_step", case="8x3 linf", device="cpu", **changes):
    figures = {
        "op": op, "case": case, "dtype": "float32", "device": device, "ours_s": 0.01234, "floor_s": 0.01,
        "floor_fraction": 0.81, "peers": {"eager": 0.0247, "compile": None}, "ratio": {"eager": 2.0, "compile": None},
        "exact": True, "versions": {"torch": "9.9"}, "machine": {},
    }  # fmt: skip
    return {**figures, **changes}


def checkout(folder: Path, document: str, machines: dict[str, dict[str, object]]) -> Path:
    """A folder with one document of an op and results."""
    for path in ("docs/ops", "benchmarks/results"):
        (folder / path).mkdir(parents=True)
    (folder / "docs/ops/pgd_step.md").write_text(document)
    for machine, files in machines.items():
        (folder / "benchmarks/results" / machine).mkdir()
        for name, content in files.items():
            (folder / "benchmarks/results" / machine / f"{name}.json").write_text(json.dumps(content))
    return folder


CPU_DOCUMENT = "Before.\n\n<!-- benchmarks:pgd_step -->\nold\n<!-- /benchmarks:pgd_step -->\n\nAfter.\n"
GPU_DOCUMENT = CPU_DOCUMENT.replace(":pgd_step", ":pgd_step-gpu")


def test_a_table_holds_all_rows_of_its_op(tmp_path):
    rows = [row(), row(case="9x3 l2", ours_s=0.001, floor_fraction=None), row(op="knn_topk")]
    root = checkout(tmp_path, CPU_DOCUMENT, {quotes.CPU_MACHINE: {"pgd_step": rows[:1], "others": rows[1:]}})
    assert report.update(root, check=False) == [root / "docs/ops/pgd_step.md"]
    lines = (root / "docs/ops/pgd_step.md").read_text().splitlines()
    assert lines[0] == "Before."
    assert lines[3:7] == [
        "| case | dtype | ours, ms | of floor | eager | compile |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        "| 9x3 l2 | float32 | 1.00 | – | 2.00 x | – |",  # noqa: RUF001
        "| 8x3 linf | float32 | 12 | 0.81 | 2.00 x | – |",  # noqa: RUF001
    ]
    assert lines[-1] == "After."
    assert report.update(root, check=True) == []


def test_checking_writes_nothing_and_finds_a_changed_figure(tmp_path):
    root = checkout(tmp_path, CPU_DOCUMENT, {quotes.CPU_MACHINE: {"pgd_step": [row()]}})
    command = [sys.executable, "-m", "benchmarks.report", "--check", "--root", str(root)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (1, "docs/ops/pgd_step.md: differs from the results\n")
    assert (root / "docs/ops/pgd_step.md").read_text() == CPU_DOCUMENT
    assert report.main(["--root", str(root)]) == 0
    assert report.main(["--root", str(root), "--check"]) == 0
    text = (root / "docs/ops/pgd_step.md").read_text()
    (root / "docs/ops/pgd_step.md").write_text(text.replace("2.00 x", "2.01 x"))
    assert report.main(["--root", str(root), "--check"]) == 1


def test_without_results_of_a_gpu_there_is_one_sentence(tmp_path):
    root = checkout(tmp_path, GPU_DOCUMENT, {quotes.CPU_MACHINE: {"pgd_step": [row()]}})
    report.update(root, check=False)
    text = (root / "docs/ops/pgd_step.md").read_text()
    assert "-gpu -->\nNo GPU has been measured yet.\n<!-- /" in text
    assert "|" not in text


def test_results_of_a_gpu_are_those_of_its_check(tmp_path):
    card = {"gpu": "Big Card"}
    bench = {"stage": "bench", "rows": [row(device="cuda", ours_s=7.17e-5, machine=card)], "unknowns": {}}
    files = {"bench": bench, "build": {"stage": "build", "verdict": "passed"}}
    root = checkout(tmp_path, GPU_DOCUMENT, {"big-card": files, quotes.CPU_MACHINE: {"pgd_step": [row()]}})
    report.update(root, check=False)
    text = (root / "docs/ops/pgd_step.md").read_text()
    assert "Big Card, torch 9.9; every row is in [big-card](../../benchmarks/results/big-card)." in text
    assert text.count("| 8x3 linf | float32 | 0.0717 | 0.81 | 2.00 x |") == 1
    assert "| 12 |" not in text


def test_the_error_has_a_column_where_it_was_measured():
    rows = [row(device="cuda", max_error=1.26e-7), row(device="cuda", case="whole attack")]
    head, _, *lines = report.full_table(rows, "pgd_step").splitlines()
    assert head == "| case | dtype | ours, ms | of floor | error | eager | compile |"
    assert [line.split(" | ")[4] for line in lines] == ["1e-07", report.ABSENT]


def test_a_quoted_row_must_have_been_measured():
    quote = quotes.QUOTES[0]
    fitting = row(quote.op, quote.case, ratio={quote.peer: 1.26})
    assert (
        report.quoted_table([fitting], [quote]).splitlines()[2].endswith("| 12.3 ms | split, BatchNorm, cat | 1.3 x |")
    )
    for missing in ([], [row(quote.op, quote.case, ratio={quote.peer: None})]):
        with pytest.raises(report.ReportError, match="no row multi_batch_norm"):
            report.quoted_table(missing, [quote])


def test_a_quote_of_a_gpu_that_was_not_measured_is_left_out():
    measured, other = quotes.GPU_QUOTES[0], quotes.GPU_QUOTES[-1]
    rows = [row(measured.op, measured.case, "cuda", dtype=measured.dtype, ratio={measured.peer: 3.0})]
    assert len(report.quoted_table(rows, [measured, other]).splitlines()) == 3
    assert report.quoted_table(rows, [other]) == ""


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            "<!-- benchmarks:nothing -->\n<!-- /benchmarks:nothing -->\n",
            "docs/ops/pgd_step.md: unknown table 'nothing'",
        ),
        ("<!-- benchmarks:pgd_step -->\n", "docs/ops/pgd_step.md: <!-- benchmarks:pgd_step --> has no partner"),
        ("<!-- benchmarks:speed -->\n<!-- /benchmarks:speed-gpu -->\n", "has no partner"),
    ],
)
def test_markers_that_do_not_fit_are_errors(tmp_path, document, message):
    root = checkout(tmp_path, document, {})
    with pytest.raises(report.ReportError, match=message):
        report.update(root, check=True)


def test_the_documents_show_the_committed_results():
    assert report.update(ROOT, check=True) == []
