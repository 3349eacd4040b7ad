"""What a call costs beside its work: the kernels that it launches, and the host's time to do so."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

WARM_CALLS = 20
ROUNDS = 5


def kernels_of(call: Callable[[], Any]) -> list[str]:
    """The names of the kernels that a call launches, in their order."""
    for _ in range(2):
        call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        call()
        torch.cuda.synchronize()
    events = [event for event in profiler.events() if event.device_type.name == "CUDA"]
    return [event.name[:160] for event in sorted(events, key=lambda event: event.time_range.start)]


def kernel_count(call: Callable[[], Any]) -> int | None:
    """How many kernels, copies and fills a call launches, or None where this machine does not let users profile."""
    try:
        return len(kernels_of(call)) or None
    except RuntimeError:
        return None


def back_to_back(call: Callable[[], Any]) -> dict[str, float]:
    """Seconds of a call among others like it, whose data then lie in the L2 if they fit: for the card and the host.

    The card's time holds what it waits for the host where that is the slower one.
    """
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    card, host = [], []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        start.record()
        before = time.perf_counter()
        for _ in range(WARM_CALLS):
            call()
        host.append((time.perf_counter() - before) / WARM_CALLS)
        end.record()
        end.synchronize()
        card.append(float(start.elapsed_time(end)) * 1e-3 / WARM_CALLS)
    return {"warm_s": statistics.median(card), "host_s": statistics.median(host)}
