"""The quick cases under pytest-benchmark: ``pytest benchmarks``."""

import importlib

import pytest

from benchmarks.__main__ import OPS
from benchmarks.harness import selected

CASES = [
    case for name in OPS for case in selected(importlib.import_module(f"benchmarks.bench_{name}").cases(), quick=True)
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op}-{case.case}")
def test_case(benchmark, case):
    ours = case.ours()
    for peer in case.peers.values():
        if peer is not None:
            case.check(ours, peer())
    benchmark(case.ours)
