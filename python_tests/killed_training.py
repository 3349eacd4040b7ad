"""Trains once in peace and once under fire: killed again and again, at any moment, and resumed until it is done.

A process of its own that never computes, so that forking it is safe and a kill costs no new start of Python.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo  # the first step of an optimizer imports it, in seconds, and each child would do so anew
from recipe_cases import small_splits

from mdprop_ext.recipes import MDProp, TrainConfig, run_training

CONFIG = TrainConfig(
    model="own_parts:make_model",
    criterion="own_parts:Proxies",
    embedding_dim=16,
    schedule="linear",
    steps=20,
    classes_per_batch=4,
    accumulate=2,
    validate_every=4,
    checkpoint_every=1,
)


def start(out: Path, *, writes: int | None = None) -> int:
    """Forks a process that goes on with the run, and returns its id.

    With ``writes`` it kills itself when so many files have been written under their temporary names but the last has
    not got its own yet.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            if writes is not None:
                _kill_at_replacement(writes)
            run_training(MDProp(seed=3), small_splits(), CONFIG, out, device="cpu", resume=True)
            status = 0
        finally:
            os._exit(status)
    return child


def _kill_at_replacement(count: int) -> None:
    replace, left = os.replace, [count]

    def fatal(source: str, target: Path) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = fatal


def steps_done(out: Path) -> int:
    log = out / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def wait(child: int, until: Callable[[], bool], *, seconds: float = 300.0) -> int | None:
    """Returns the status of a process that ended, or None as soon as ``until`` is true or the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            return os.waitstatus_to_exitcode(status)
        if until():
            break
        time.sleep(0.001)
    return None


def main(folder: Path, seed: int) -> int:
    peace, fire = folder / "peace", folder / "fire"
    assert wait(start(peace), lambda: False) == 0
    draw = random.Random(seed)
    kills = {"while writing": 0, "at any moment": 0, "in the evaluation": 0}
    while True:
        last = kills["in the evaluation"] == 1
        writing = not last and sum(kills.values()) % 2 == 1
        child = start(fire, writes=draw.randint(1, 5) if writing else None)
        # Some steps further than the last time, and a moment more.
        goal = CONFIG.steps if writing or last else min(CONFIG.steps, steps_done(fire) + draw.randint(2, 6))
        status = wait(child, lambda: not (writing or last) and steps_done(fire) >= goal)  # noqa: B023
        if status is None:
            status = wait(child, lambda: False, seconds=draw.uniform(0, 0.05))
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        elif status != -signal.SIGKILL:
            sys.stdout.write(f"{json.dumps(kills)}\n")
            return status
        kills["while writing" if writing else "at any moment" if goal < CONFIG.steps else "in the evaluation"] += 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
