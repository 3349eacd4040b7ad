"""``python -m benchmarks.hamming_ties``: how much the order of tied codes decides about mAP, as a table.

Random hyperplanes turn scikit-learn's digits into codes; the last 297 digits are queries among the other 1,500.
"""

from __future__ import annotations

import sys

import torch

from mdprop_ext import metrics, ops
from mdprop_ext.data import load_digits

BITS = (8, 16, 32, 64, 128)
TIES = ("pessimistic", "stable", "expected", "optimistic")
DATABASE = 1500


def table() -> str:
    """The mAP of the whole ranking by length of code and rule for ties, in Markdown."""
    digits = load_digits(image_size=8)
    pixels = digits.floats().flatten(1).double()
    centred = pixels - pixels.mean(0)
    lines = [f"| bits | {' | '.join(TIES)} |", f"| ---: |{' ---: |' * len(TIES)}"]
    for bits in BITS:
        planes = torch.randn(64, bits, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        codes = ops.pack_codes(centred @ planes)
        halves = (codes[DATABASE:], digits.labels[DATABASE:], codes[:DATABASE], digits.labels[:DATABASE])
        values = [metrics.hamming_map(*halves, bits=bits, ties=ties) for ties in TIES]
        lines.append(f"| {bits} | {' | '.join(f'{value:.4f}' for value in values)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
    sys.exit(0)
