"""The rows of the tables of a card: which there are, and, on small tensors of the CPU, what they compare."""

from __future__ import annotations

import dataclasses
import time
from functools import partial

import pytest
import torch

from benchmarks import harness
from benchmarks.gpu_check import cases_mixture, cases_norm, cases_search, cases_step, launches, measure, plan, process
from benchmarks.quotes import GPU_QUOTES

SINGLE, HALF, DOUBLE = torch.float32, torch.bfloat16, torch.float64
LIBRARIES = ("compile", "compiled_batch_norm", "faiss", "cuvs")  # slow, or not for the CPU


def checked(case):
    """The figures of a case whose peers give its results."""
    ours = case.ours()
    names = [name for name, peer in case.peers.items() if peer is not None and name not in LIBRARIES]
    assert names
    for name in names:
        case.check(ours, case.peers[name]())
    return case.figures()


@pytest.mark.parametrize("kind", [*cases_step.KINDS, *cases_step.VARIANTS])
def test_steps(kind):
    if "momentum" in kind:  # peers and ours each have one call of their own
        figures = cases_step.case((3, 3, 8, 8), kind, SINGLE, "cpu").figures()
    else:
        figures = checked(cases_step.case((3, 3, 8, 8), kind, SINGLE, "cpu"))
    assert figures["max_error"] < (1e-2 if "out" in kind else 1e-5)
    assert figures["bound_violation"] <= 1e-7  # what float32 makes of image / 255


def test_a_step_out_of_its_ball_is_seen():
    origin = torch.full((2, 3), 0.5)
    assert cases_step.violation(origin + torch.tensor([[0.25], [0.0]]), origin, "linf", 0.125) == 0.125
    assert cases_step.violation(origin + 0.25, origin, "l1", torch.tensor([0.5, 1.0])) == 0.25
    assert cases_step.violation(origin, (origin * 255).round().byte(), "linf", 0.25) < -0.24


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(("split", "extra"), [("", "add relu"), ("90-10", ""), ("interleaved", "")])
def test_norms(direction, split, extra):
    row = cases_norm.Setting((20, 12, 4, 4), "nchw", SINGLE, direction, 2, extra, split)
    case = cases_norm.case(row, "cpu")
    assert ("view" in case.peers) == (split == "interleaved")
    assert checked(case)["max_error"] < 1e-5


def test_mixture():
    assert checked(cases_mixture.case(SINGLE, (6, 5, 4, 4), "cpu"))["max_error"] < 1e-5


def test_an_error_is_measured_by_the_greatest_value():
    exact = torch.tensor([1.0, -8.0]).double(), torch.ones(1).double()
    assert plan.max_error((torch.tensor([2.0, -8.0]), torch.ones(1)), exact) == 1 / 8


@pytest.mark.parametrize(("metric", "dtype"), [("sqeuclidean", HALF), ("cosine", SINGLE), ("dot", DOUBLE)])
def test_searches(metric, dtype):
    search = cases_search.Search(70, 300, 16, 5, metric, dtype)
    case = cases_search.knn_case(search, "cpu")
    checked(case)
    assert bool(case.least_flops) == (dtype != DOUBLE)
    few = cases_search.knn_case(dataclasses.replace(search, queries=2), "cpu")
    assert (few.least_bytes, few.least_flops) == (302 * 16 * dtype.itemsize, 0)


def planned():
    return list(plan.interleaved(*measure.plans()))


def test_every_row_has_a_name_of_its_own_and_every_quote_a_row():
    rows = planned()
    assert len({row.name for row in rows}) == len(rows)
    known = {(row.op, row.case, row.dtype) for row in rows}
    assert [quote for quote in GPU_QUOTES if (quote.op, quote.case, quote.dtype) not in known] == []


def test_a_case_whose_library_is_absent_is_unavailable_and_one_that_raises_has_failed(tmp_path, monkeypatch):
    def build(error):
        raise error

    monkeypatch.setenv(process.RECORD_VARIABLE, str(tmp_path / "record"))
    for error in (ModuleNotFoundError("No module named 'timm'"), OSError("no memory")):
        measure.record(plan.Planned("attack", "case", "float32", partial(build, error)), compiles=True)
    assert process.read_own_record() == [
        {"unavailable": "attack case float32", "message": "No module named 'timm'"},
        {"failed": "attack case float32", "message": "OSError: no memory"},
    ]


def test_a_measurement_goes_on_behind_the_case_that_lost_the_card(tmp_path, monkeypatch):
    names = ["op a float32", "op b float32", "op c float32"]
    lost = [False, True, False]
    monkeypatch.setenv(process.RECORD_VARIABLE, str(tmp_path / "record"))
    monkeypatch.setattr(measure, "plans", lambda: ([plan.Planned("op", case, "float32", dict) for case in "abc"],))
    monkeypatch.setattr(measure, "ceilings", dict)
    monkeypatch.setattr(measure, "record", lambda planned, compiles: process.append({"row": planned.name}) or True)
    monkeypatch.setattr(measure, "card_is_lost", lambda: lost.pop(0))
    assert measure.main() == 1
    entries = process.read_own_record()
    assert entries[0] == {"planned": names}
    assert [entry["row"] for entry in entries if "row" in entry] == names[:2]
    assert measure.main() == 0
    entries = process.read_own_record()
    assert [entry["row"] for entry in entries if "row" in entry] == names
    assert [entry["ended"] for entry in entries if "ended" in entry] == names
    assert sum("planned" in entry for entry in entries) == 1


def test_few_rows_are_compiled_and_all_that_are_quoted():
    rows = planned()
    names = plan.rows_to_compile(rows)
    assert len(names) <= 20
    quoted = {(quote.op, quote.case, quote.dtype) for quote in GPU_QUOTES if quote.peer == "compile"}
    assert {row.name for row in rows if (row.op, row.case, row.dtype) in quoted} <= names
    small = [plan.Planned("op", case, "float32", dict, kind) for case, kind in (("a", "x"), ("b", "x"), ("c", "y"))]
    assert plan.rows_to_compile(small) == {"op a float32", "op c float32"}


def test_a_row_that_is_not_compiled_lacks_those_peers_alone():
    case = cases_step.case((2, 3), "linf", SINGLE, "cpu")
    peers = plan.without_compiled(case).peers
    assert {name for name, peer in peers.items() if peer is None} == {"compile"}
    assert peers["eager"] is case.peers["eager"]


def test_a_machine_without_profiling_leaves_the_kernels_open(monkeypatch):
    def refused(call):
        raise RuntimeError("not permitted")

    monkeypatch.setattr(launches, "kernels_of", refused)
    assert launches.kernel_count(lambda: None) is None
    monkeypatch.setattr(launches, "kernels_of", lambda call: ["a", "b"])
    assert launches.kernel_count(lambda: None) == 2


def test_short_calls_have_more_rounds():
    assert harness.rounds_wanted([1e-3, 9e-3, 1e-3], 15, 30) == 30
    assert harness.rounds_wanted([6e-3], 15, 30) == 15
    calls = []

    def ours():
        calls.append(1)
        time.sleep(1e-3)

    case = cases_step.case((2, 3), "linf", SINGLE, "cpu")
    case = dataclasses.replace(case, ours=ours, peers={}, least_bytes=0)
    harness.measure(case, seconds=0.01, at_least=2, at_least_short=40)
    assert len(calls) == 1 + 40
