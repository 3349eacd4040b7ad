"""How a benchmark case is checked and timed: one row a case.

Every peer's result is checked against ours before anything is timed. Ours and the peers then run in turn, so that a
slow moment of the machine hits all of them; medians are reported, with quartiles. An absent peer is null.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import mdprop_ext
from benchmarks.timing import copy_floor, gemm, timer


@dataclass(frozen=True)
class Case:
    """One operation at one size.

    ``check(ours, theirs)`` raises if a peer's result is not equal; ``work`` and ``unit`` give the rate. The floor is a
    copy of ``least_bytes``, the traffic that none of them can avoid, or on a card a bf16 matrix product of
    ``least_flops``, whichever is given. ``figures`` gives more columns, such as the error of our result; it is called
    outside of timing.
    """

    op: str
    case: str
    dtype: str
    ours: Callable[[], Any]
    peers: dict[str, Callable[[], Any] | None]
    check: Callable[[Any, Any], None]
    work: float
    unit: str
    least_bytes: int = 0
    quick: bool = False
    device: str = "cpu"
    least_flops: float = 0.0
    figures: Callable[[], dict[str, float]] = dict


@dataclass
class Row:
    """The measurements of a case, as they are written to JSON."""

    op: str
    case: str
    dtype: str
    device: str
    ours_s: float
    ours_quartiles_s: tuple[float, float]
    rate: float
    unit: str
    floor_s: float | None
    floor_fraction: float | None
    peers: dict[str, float | None]
    ratio: dict[str, float | None]
    exact: bool
    versions: dict[str, str]
    machine: dict[str, Any] = field(default_factory=dict)


SHORT_S = 5e-3  # a call below that is a short one


def measure(case: Case, *, seconds: float = 2.0, at_least: int = 9, at_least_short: int = 9) -> Row:
    """Checks the peers of a case, times all in turn, and returns the row.

    Rounds go on for so many seconds, and until there are ``at_least``, of short calls ``at_least_short``.
    """
    ours = case.ours()
    peers = {name: peer for name, peer in case.peers.items() if peer is not None}
    for name, peer in peers.items():
        try:
            case.check(ours, peer())
        except AssertionError as error:
            raise AssertionError(f"{case.op}, {case.case}: {name} gives another result: {error}") from None
    seconds_of = timer(case.device)
    runners = {"ours": case.ours, **peers}
    floor_share = 1.0
    if case.least_bytes:
        runners["floor"] = copy_floor(case.least_bytes, case.device)
    elif case.least_flops:
        runners["floor"], flops = gemm(case.device)
        floor_share = case.least_flops / flops
    times: dict[str, list[float]] = {name: [] for name in runners}
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(times["ours"]) < rounds_wanted(
        times["ours"], at_least, at_least_short
    ):
        for name, runner in runners.items():
            times[name].append(seconds_of(runner))
        if time.perf_counter() - start > 20 * seconds:
            break
    median = {name: statistics.median(values) for name, values in times.items()}
    quartiles = np.quantile(times["ours"], [0.25, 0.75])
    floor = median["floor"] * floor_share if "floor" in median else None
    return Row(
        op=case.op,
        case=case.case,
        dtype=case.dtype,
        device=case.device,
        ours_s=median["ours"],
        ours_quartiles_s=(float(quartiles[0]), float(quartiles[1])),
        rate=case.work / median["ours"],
        unit=case.unit,
        floor_s=floor,
        floor_fraction=None if floor is None else floor / median["ours"],
        peers={name: median.get(name) for name in case.peers},
        ratio={name: median[name] / median["ours"] if name in median else None for name in case.peers},
        exact=True,
        versions={
            "mdprop_ext": mdprop_ext.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        machine=machine(),
    )


def rounds_wanted(times: list[float], at_least: int, at_least_short: int) -> int:
    """How many rounds there must be, by the seconds of our calls so far."""
    return max(at_least, at_least_short) if times and statistics.median(times) < SHORT_S else at_least


def machine() -> dict[str, Any]:
    """The processor and how much of it is used, and the card where there is one."""
    from mdprop_ext.info import collect

    facts = collect()
    extension = facts["extension"] or {}
    return {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "cpu_isa": extension.get("cpu_isa", "reference"),
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
    }


def processor() -> str:
    """The name of the processor, as far as the system tells it."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def close(tolerance: float) -> Callable[[Any, Any], None]:
    """A check that tensors, or tuples of them, agree within a tolerance."""

    def check(ours: Any, theirs: Any) -> None:
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)

    return check


def same(ours: Any, theirs: Any) -> None:
    """A check that tensors, or tuples of them, are equal."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def selected(cases: Iterator[Case], *, quick: bool) -> Iterator[Case]:
    """The quick cases only, or all."""
    return (case for case in cases if case.quick or not quick)
