"""Ctrl-C on a terminal, in a process of its own."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from recipe_cases import write_folder

from mdprop_ext.recipes import load_checkpoint

PATIENCE = 120.0


def read_until(descriptor: int, text: bytes, deadline: float) -> bytes:
    """What a terminal shows until ``text`` is there or the program is gone."""
    shown = b""
    while text not in shown and time.monotonic() < deadline:
        if select.select([descriptor], [], [], 0.5)[0]:
            try:
                shown += os.read(descriptor, 4096)
            except OSError:  # the other end is closed
                break
    return shown


def test_progress_on_a_terminal_and_ctrl_c(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "images")
    out = tmp_path / "run"
    terminal, program_end = pty.openpty()
    options = [
        "--data",
        "folder",
        "--train",
        str(data),
        "--image-size",
        "16",
        "--set",
        "steps=1000000",
        "--set",
        "validate_every=5",
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "mdprop_ext.cli", "train", "--recipe", "mdprop", *options, "--out", str(out)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=program_end,
        # Background jobs of scripts start with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    ) as process:
        os.close(program_end)
        try:
            shown = read_until(terminal, b"R@1", time.monotonic() + PATIENCE)
            assert b"loss" in shown
            process.send_signal(signal.SIGINT)
            shown = read_until(terminal, b"is saved in", time.monotonic() + PATIENCE)
            process.send_signal(signal.SIGINT)  # once more, while Python ends
            shown += read_until(terminal, b"Traceback", time.monotonic() + PATIENCE)
            assert process.wait(PATIENCE) == 130
        finally:
            process.kill()
            os.close(terminal)
    assert b"mdprop: interrupted at step" in shown
    assert b"Traceback" not in shown
    _, description = load_checkpoint(out)
    assert description.step == len((out / "log.jsonl").read_text().splitlines())
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        "log.jsonl",
        "model.safetensors",
        "training_state.safetensors",
    ]
