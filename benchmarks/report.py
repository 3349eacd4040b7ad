"""``python -m benchmarks.report [--check]``: writes the tables of the documents from ``benchmarks/results/``.

A table lies between ``<!-- benchmarks:NAME -->`` and ``<!-- /benchmarks:NAME -->``. NAME is one of

* ``speed``, ``speed-gpu``: the rows that ``quotes.py`` picks;
* an op, such as ``pgd_step``, or ``pgd_step-gpu``: all of its rows.

Results of a GPU are the files that ``make gpu-check`` wrote, in a folder named after the card. A figure that nobody
measured is left out; nothing is filled in for it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.quotes import CPU_MACHINE, GPU_QUOTES, QUOTES, Quote

ROOT = Path(__file__).resolve().parent.parent
OPS = ("multi_batch_norm", "multi_batch_norm_mixture", "pgd_step", "hamming_topk", "knn_topk")
ABSENT = "\N{EN DASH}"
NO_GPU = "No GPU has been measured yet."
PEERS = {"addmm_topk": "tiled"}  # what a table calls a peer, where that differs
MARKED = re.compile(r"(<!-- benchmarks:(\S+) -->\n).*?(<!-- /benchmarks:\2 -->)", re.DOTALL)
MARKER = re.compile(r"<!-- /?benchmarks:\S+ -->")

Row = dict[str, Any]


class ReportError(Exception):
    """A document asks for something that the results do not hold."""


@dataclass(frozen=True)
class Results:
    """The rows of each machine by the name of its folder, and where the folders are."""

    folder: Path
    rows: Mapping[str, list[Row]]

    @classmethod
    def read(cls, folder: Path) -> Results:
        """Reads every JSON file of every machine: lists of rows, or objects with ``rows`` among other things."""
        rows: dict[str, list[Row]] = {}
        for path in sorted(folder.glob("*/*.json")):
            content = json.loads(path.read_text())
            found = content if isinstance(content, list) else content.get("rows", [])
            rows.setdefault(path.parent.name, []).extend(found)
        return cls(folder, rows)

    def gpus(self) -> list[str]:
        """The machines whose rows were measured on a card."""
        return [name for name, rows in self.rows.items() if any(row["device"] == "cuda" for row in rows)]


def tables(results: Results, document: Path) -> dict[str, Callable[[], str]]:
    """Every table by name, as a document in its place in the repository shows it."""
    on_cpu = results.rows.get(CPU_MACHINE, [])

    def on_gpus(table: Callable[[list[Row]], str]) -> Callable[[], str]:
        return partial(for_each_gpu, results, document, table)

    made: dict[str, Callable[[], str]] = {
        "speed": partial(quoted_table, on_cpu, QUOTES, milliseconds),
        "speed-gpu": on_gpus(partial(quoted_table, quotes=GPU_QUOTES)),
    }
    for op in OPS:
        made[op] = partial(full_table, on_cpu, op, milliseconds)
        made[f"{op}-gpu"] = on_gpus(partial(full_table, op=op))
    return made


def for_each_gpu(results: Results, document: Path, table: Callable[[list[Row]], str]) -> str:
    """One table a card with a line on what it was measured with, or the sentence that there is none."""
    parts = []
    for name in results.gpus():
        rows = [row for row in results.rows[name] if row["device"] == "cuda"]
        body = table(rows)
        if body:
            link = os.path.relpath(results.folder / name, document.parent)
            card, versions = rows[0]["machine"].get("gpu", name), rows[0]["versions"]
            parts.append(f"{card}, torch {versions['torch']}; every row is in [{name}]({link}).\n\n{body}")
    return "\n\n".join(parts) or NO_GPU


def significant(seconds: float) -> str:
    """Milliseconds with three digits that count."""
    return f"{seconds * 1e3:.3g}"


def milliseconds(seconds: float) -> str:
    """Milliseconds with as many digits as repeated runs agree on."""
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}"


def quoted_table(rows: list[Row], quotes: Sequence[Quote], time: Callable[[float], str] = significant) -> str:
    """Chosen rows against one peer each; a row that is not required and was not measured is left out."""
    lines = []
    for quote in quotes:
        row = next((row for row in rows if quote.selects(row)), None)
        if row is None or row["ratio"].get(quote.peer) is None:
            if quote.required:
                raise ReportError(f"no row {quote.op}, {quote.case}, {quote.dtype} against {quote.peer} in the results")
            continue
        cells = [
            quote.op_label or f"`{quote.op}`",
            quote.case_label or quote.case,
            f"{time(row['ours_s'])} ms",
            quote.peer_label,
            f"{row['ratio'][quote.peer]:.1f} x",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    head = ["| Op | Case | Ours | Peer | Peer / ours |", "| --- | --- | ---: | --- | ---: |"]
    return "\n".join([*head, *lines]) if lines else ""


def full_table(rows: list[Row], op: str, time: Callable[[float], str] = significant) -> str:
    """All rows of an op with all peers; a dash where a peer is absent."""
    rows = [row for row in rows if row["op"] == op]
    if not rows:
        return ""
    peers = list(dict.fromkeys(name for row in rows for name in row["ratio"]))
    floor = any(row["floor_fraction"] is not None for row in rows)
    errors = any("max_error" in row for row in rows)
    heads = ["case", "dtype", "ours, ms", *(["of floor"] if floor else []), *(["error"] if errors else [])]
    heads += [PEERS.get(name, name) for name in peers]
    lines = [heads, ["---", "---", *["---:"] * (len(heads) - 2)]]
    for row in rows:
        share = row["floor_fraction"]
        cells = [row["case"], row["dtype"], time(row["ours_s"])]
        cells += [ABSENT if share is None else f"{share:.2f}"] if floor else []
        ratios = [row["ratio"].get(name) for name in peers]
        cells += [f"{row['max_error']:.0e}" if "max_error" in row else ABSENT] if errors else []
        lines.append([*cells, *(ABSENT if ratio is None else f"{ratio:.2f} x" for ratio in ratios)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def rendered(text: str, known: Mapping[str, Callable[[], str]]) -> str:
    """The text with every table made anew.

    Raises:
        ReportError: If a marker has no partner, or names no table.
    """

    def fill(match: re.Match[str]) -> str:
        name = match[2]
        if name not in known:
            raise ReportError(f"unknown table {name!r}: expected one of {', '.join(known)}")
        body = known[name]()
        return f"{match[1]}{body}\n{match[3]}" if body else f"{match[1]}{match[3]}"

    left_over = MARKER.search(MARKED.sub("", text))
    if left_over is not None:
        raise ReportError(f"{left_over[0]} has no partner")
    return MARKED.sub(fill, text)


def documents(root: Path) -> list[Path]:
    """The files in which tables may be."""
    return [root / "README.md", root / "benchmarks/README.md", *sorted((root / "docs").rglob("*.md"))]


def update(root: Path, *, check: bool) -> list[Path]:
    """Writes the tables, or only looks; returns the documents that differ from the results."""
    results = Results.read(root / "benchmarks/results")
    changed = []
    for path in documents(root):
        text = path.read_text() if path.exists() else ""
        try:
            new = rendered(text, tables(results, path))
        except ReportError as error:
            raise ReportError(f"{path.relative_to(root)}: {error}") from None
        if new != text:
            changed.append(path)
            if not check:
                path.write_text(new)
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; the status is 1 where a table differs")
    parser.add_argument("--root", type=Path, default=ROOT, metavar="DIR", help="the checkout; this one by default")
    options = parser.parse_args(arguments)
    try:
        changed = update(options.root, check=options.check)
    except ReportError as error:
        print(error, file=sys.stderr)
        return 1
    for path in changed:
        print(f"{path.relative_to(options.root)}: {'differs from the results' if options.check else 'written'}")
    return 1 if changed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
