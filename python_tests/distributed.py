"""Functions run by several processes at once, which exchange tensors over gloo."""

from __future__ import annotations

import datetime
import faulthandler
import multiprocessing
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import distributed as dist

# Ranks are forked from a server that has imported what they need: a spawned one would spend seconds on that. The first
# module is what building a DistributedDataParallel imports.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch._dynamo", "torch.profiler", "mdprop_ext.nn", "mdprop_ext.attacks"])


def run_on_ranks(function: Callable[..., Any], ranks: int, *args: Any, timeout: float = 40) -> list[Any]:
    """Calls ``function(rank, *args)`` in each of ``ranks`` processes of one gloo group.

    Args:
        function: A function of a module, so that it can be named to another process.
        ranks: Number of processes.
        *args: The same for every rank.
        timeout: Seconds until ranks that still run are killed.

    Returns:
        What each rank returned, in the order of ranks.

    Raises:
        AssertionError: If a rank raised, with its traceback, or did not return in time. None is left running.
    """
    with TemporaryDirectory() as folder:
        work = (function, ranks, args, timeout, Path(folder))
        processes = [_CONTEXT.Process(target=_run, args=(rank, *work), daemon=True) for rank in range(ranks)]
        for process in processes:
            process.start()
        try:
            _wait(processes, time.monotonic() + timeout)
            late = [rank for rank, process in enumerate(processes) if process.is_alive()]
        finally:
            for process in processes:
                process.kill()
                process.join()
        errors = [path.read_text() for path in sorted(Path(folder).glob("*.error"))]
        assert not errors, "\n".join(errors)
        assert not late, f"ranks {late} of {ranks} did not return within {timeout} s"
        return [torch.load(Path(folder, f"{rank}.result"), weights_only=False) for rank in range(ranks)]


def _wait(processes: list[Any], deadline: float) -> None:
    """Returns when all ranks have ended, one has failed and the others had a second to follow, or at the deadline."""
    while time.monotonic() < deadline and any(process.is_alive() for process in processes):
        if any(process.exitcode for process in processes):
            deadline = min(deadline, time.monotonic() + 1)
        time.sleep(0.005)


def _run(rank: int, function: Callable[..., Any], ranks: int, args: Any, timeout: float, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(rank)
    faulthandler.dump_traceback_later(0.9 * timeout)  # says where a rank waits that is about to be killed
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder / 'store'}",
            rank=rank,
            world_size=ranks,
            timeout=datetime.timedelta(seconds=timeout + 60),  # so that it is the caller who ends a dead-lock
        )
        torch.save(function(rank, *args), folder / f"{rank}.result")
        dist.destroy_process_group()
    except BaseException:
        (folder / f"{rank}.error").write_text(f"rank {rank}:\n{traceback.format_exc()}")
        raise SystemExit(1) from None
