"""``python -m benchmarks [op ...] [--quick] [--json FILE]``: times every op and prints a table."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import Row, measure, processor, selected

OPS = ("multi_batch_norm", "pgd_step", "hamming_topk", "knn_topk", "train_step")


def line(row: Row) -> str:
    """One row as text: our time, the fraction of the floor, and how many times slower each peer is."""
    floor = "" if row.floor_fraction is None else f"{row.floor_fraction:5.2f} of floor  "
    ratios = "  ".join(f"{name} {ratio:.2f} x" if ratio else f"{name} absent" for name, ratio in row.ratio.items())
    return f"{row.op:<17} {row.case:<42} {row.dtype:<9} {row.ours_s * 1e3:9.3f} ms  {floor}{ratios}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("ops", nargs="*", metavar="op", help=f"of {', '.join(OPS)}; all without one")
    parser.add_argument("--quick", action="store_true", help="one small case an op")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.ops if name not in OPS]
    if unknown:
        parser.error(f"unknown op {unknown[0]!r}: expected one of {', '.join(OPS)}")
    print(f"processor: {processor()}; a ratio above 1 means that ours is faster", flush=True)
    rows = []
    for name in options.ops or OPS:
        for case in selected(importlib.import_module(f"benchmarks.bench_{name}").cases(), quick=options.quick):
            rows.append(measure(case, seconds=0.3 if options.quick else 1.5))
            print(line(rows[-1]), flush=True)
    if options.json:
        temporary = options.json.with_suffix(".tmp")
        temporary.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n")
        os.replace(temporary, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
