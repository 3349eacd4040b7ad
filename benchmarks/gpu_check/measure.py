"""Measures the cases of all ops on the card, for as long as there is time, and records each row at once.

What is recorded: the names of all cases, the speed of a copy and of a matrix product, then a row a case with the number
of kernels it launches and our error, or why a case failed or a peer is absent.
"""

from __future__ import annotations

import dataclasses
import gc
import statistics
import sys

import torch
import torch._functorch.config

from benchmarks.gpu_check import cases_attack, cases_norm, cases_search, cases_step
from benchmarks.gpu_check.card import card_is_lost
from benchmarks.gpu_check.launches import back_to_back, kernel_count
from benchmarks.gpu_check.plan import Planned, interleaved, rows_to_compile, without_compiled
from benchmarks.gpu_check.process import append, deadline_told, read_own_record
from benchmarks.gpu_check.restarts import started
from benchmarks.harness import SHORT_S, Case, measure
from benchmarks.timing import CudaTimer, copy_floor, gemm

SECONDS_A_CASE = 0.3
ROUNDS, SHORT_ROUNDS = 15, 30


def plans() -> tuple[list[Planned], ...]:
    """All cases, a list an op."""
    return (
        cases_norm.plan(),
        cases_step.plan(),
        cases_search.plan_knn(),
        cases_search.plan_hamming(),
        cases_attack.plan(),
    )


def ceilings() -> dict[str, float]:
    """Bytes read and written a second by a copy of 1 GiB in all, and bf16 operations a second of a matrix product."""
    seconds_of = CudaTimer()
    product, operations = gemm("cuda")
    runners = copy_floor(1 << 30, "cuda"), product
    copy_s, product_s = (statistics.median(seconds_of(runner) for _ in range(ROUNDS)) for runner in runners)
    return {"copy_bytes_per_s": (1 << 30) / copy_s, "bf16_flops_per_s": operations / product_s}


def usable(case: Case) -> tuple[Case, dict[str, str]]:
    """The case without the peers that cannot run here, and why they cannot."""
    peers, reasons = dict(case.peers), {}
    for name, peer in case.peers.items():
        try:
            if peer is not None:
                peer()
        except Exception as error:  # whatever a peer raises makes it absent, and its row goes on
            peers[name] = None
            reasons[name] = f"{type(error).__name__}: {error}".partition("\n")[0]
    return dataclasses.replace(case, peers=peers), reasons


def record(planned: Planned, compiles: bool) -> bool:
    """Measures one case; whether there is a row."""
    try:
        case = planned.build() if compiles else without_compiled(planned.build())
        if "momentum" in case.case:
            reasons: dict[str, str] = {}  # a trial would change the velocity of one side alone
        else:
            case, reasons = usable(case)
        row = dataclasses.asdict(measure(case, seconds=SECONDS_A_CASE, at_least=ROUNDS, at_least_short=SHORT_ROUNDS))
        row |= case.figures()
        row["launches"] = kernel_count(case.ours)
        if row["ours_s"] < SHORT_S:  # longer calls have no use for a warm L2, and hide the host's work
            row |= back_to_back(case.ours)
    except ModuleNotFoundError as error:  # a model that a case attacks, where its library is not installed
        append({"unavailable": planned.name, "message": str(error)})
        return True
    except Exception as error:  # a case that fails must not hide the next ones
        append({"failed": planned.name, "message": f"{type(error).__name__}: {error}"[:1000]})
        return False
    append({"row": row, "absent": reasons})
    return True


def main() -> int:
    deadline = deadline_told()
    # A backward pass that is timed alone runs many times on one graph, whose buffers it must not give away.
    torch._functorch.config.donated_buffer = False
    planned_cases = list(interleaved(*plans()))
    compiles = rows_to_compile(planned_cases)
    seen = started(read_own_record())  # by a process that was lost on the way
    if not seen:
        append({"planned": [planned.name for planned in planned_cases]})
        append({"ceilings": ceilings()})
    good = True
    for planned in planned_cases:
        if planned.name in seen:
            continue
        if deadline.left() == 0:
            break
        append({"started": planned.name})
        good &= record(planned, planned.name in compiles)
        append({"ended": planned.name})
        if card_is_lost():
            return 1
        torch._dynamo.reset()
        gc.collect()
        torch.cuda.empty_cache()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
