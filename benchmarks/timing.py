"""How long a call takes on a device, and the floors below which no call can go."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

Runner = Callable[[], Any]
FLUSHED_BYTES = 512 << 20  # several times any L2; filling it also keeps the card busy while the host enqueues a call
GEMM_SIDE = 8192


def timer(device: str) -> Callable[[Runner], float]:
    """A function that gives the seconds of one call on a device: by the host's clock, or by CUDA events, cache cold."""
    return _seconds_on_host if device == "cpu" else CudaTimer()


def _seconds_on_host(runner: Runner) -> float:
    before = time.perf_counter()
    runner()
    return time.perf_counter() - before


class CudaTimer:
    """Seconds between two events round a call. What the host needs to enqueue it counts only where the card waits."""

    def __init__(self) -> None:
        self._flushed = torch.empty(FLUSHED_BYTES, dtype=torch.uint8, device="cuda")
        self._start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def __call__(self, runner: Runner) -> float:
        self._flushed.zero_()
        self._start.record()
        runner()
        self._end.record()
        self._end.synchronize()
        return float(self._start.elapsed_time(self._end)) * 1e-3


def copy_floor(least_bytes: int, device: str) -> Runner:
    """A copy that reads and writes ``least_bytes`` in all."""
    source = torch.rand(max(1, least_bytes // 8), device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def gemm(device: str) -> tuple[Runner, float]:
    """A large bf16 matrix product and its floating-point operations: the fastest arithmetic that torch offers."""
    a, b = (torch.randn(GEMM_SIDE, GEMM_SIDE, device=device).bfloat16() for _ in range(2))
    return lambda: a @ b, 2.0 * GEMM_SIDE**3
