"""``python -m benchmarks.retrieval_memory [--items N] [--json FILE]``: the memory of measuring all against all.

Embeddings of the size of the Stanford Online Products test set, 60,502 images of 11,316 classes with 2 to 12 images,
are searched among themselves. Each measure runs in a process of its own: what it needs is the highest resident size of
the process at its end, less the resident size right before it, when embeddings, codes and labels are there and a small
call has started the threads.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import mdprop_ext
from benchmarks.harness import machine
from mdprop_ext import metrics, ops
from mdprop_ext._files import write_json

ITEMS, CLASSES, DIM, BITS = 60_502, 11_316, 128, 64
SMALLEST, LARGEST = 2, 12

MEASURES: dict[str, Callable[[Tensor, Tensor, Tensor], dict[str, float]]] = {
    "retrieval_metrics": lambda embeddings, codes, labels: metrics.retrieval_metrics(
        embeddings, labels, include=["precision", "r_precision"]
    ),
    "retrieval_metrics of whole rankings": lambda embeddings, codes, labels: metrics.retrieval_metrics(
        embeddings, labels, include=["map", "mrr"]
    ),
    "hamming_metrics": lambda embeddings, codes, labels: metrics.hamming_metrics(codes, labels, bits=BITS),
}


def class_sizes(items: int, classes: int) -> Tensor:
    """Draws how many items each class has, from 2 to 12 and mostly few, so that they add up."""
    generator = torch.Generator().manual_seed(0)
    spread = LARGEST - SMALLEST + 1
    sizes = SMALLEST + (spread * torch.rand(classes, generator=generator) ** 1.86).long()
    while (missing := items - int(sizes.sum())) != 0:
        free = ((sizes < LARGEST) if missing > 0 else (sizes > SMALLEST)).nonzero()[:, 0]
        chosen = free[torch.randperm(len(free), generator=generator)[: abs(missing)]]
        sizes[chosen] += 1 if missing > 0 else -1
    return sizes


def data(items: int) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of unit length around one centre a class, their signs as packed codes, and labels."""
    generator = torch.Generator().manual_seed(0)
    sizes = class_sizes(items, round(items * CLASSES / ITEMS))
    labels = torch.arange(len(sizes)).repeat_interleave(sizes)[torch.randperm(items, generator=generator)]
    centres = torch.randn(len(sizes), DIM, generator=generator)
    embeddings = torch.randn(items, DIM, generator=generator)
    codes = torch.empty(items, 1, dtype=torch.int64)
    for rows in torch.arange(items).split(1024):  # a copy of everything would hide what the measure needs
        embeddings[rows] = F.normalize(embeddings[rows] + centres[labels[rows]])
        codes[rows] = ops.pack_codes(embeddings[rows][:, :BITS])
    return embeddings, codes, labels


def measure(name: str, items: int) -> dict[str, Any]:
    """Runs one measure in this process and tells what it needed."""
    embeddings, codes, labels = data(items)
    few = torch.arange(64) % 8
    MEASURES[name](embeddings[:64], codes[:64], few)
    before = resident_bytes()
    result = MEASURES[name](embeddings, codes, labels)
    return {"measure": name, "peak_bytes_beyond": resident_bytes(peak=True) - before, "result": result}


def resident_bytes(*, peak: bool = False) -> int:
    """The resident size of this process, or the highest that it has had.

    ``getrusage`` would not do for the latter: its figure begins with that of the process which started this one.
    """
    field = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def measure_apart(name: str, items: int) -> dict[str, Any]:
    """Runs one measure in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.retrieval_memory", "--measure", name, "--items", str(items)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval_memory", description=__doc__)
    parser.add_argument("--items", type=int, default=ITEMS, metavar="N", help="queries and references")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--measure", choices=MEASURES, help="measure in this process and print JSON")
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(options.measure, options.items)))
        return 0
    found = [measure_apart(name, options.items) for name in MEASURES]
    for row in found:
        print(f"{row['measure']:<35} {row['peak_bytes_beyond'] / 2**20:7.0f} MiB beyond embeddings, codes and labels")
    if options.json:
        sizes = class_sizes(options.items, round(options.items * CLASSES / ITEMS))
        content = {
            "items": options.items,
            "classes": len(sizes),
            "items_of_a_class": [int(sizes.min()), int(sizes.max())],
            "dim": DIM,
            "bits": BITS,
            "embedding_bytes": options.items * DIM * 4,
            "measurements": found,
            "versions": {
                "mdprop_ext": mdprop_ext.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "machine": machine(),
        }
        write_json(options.json, content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
