"""Which GPU there is, and what else the figures depend on. torch is asked in a process of its own."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

TIMEOUT_S = 60.0  # of one question
QUESTION = """
import json, torch
facts = {"torch": torch.__version__, "torch_cuda": torch.version.cuda, "cuda_available": torch.cuda.is_available()}
if facts["cuda_available"]:
    card = torch.cuda.get_device_properties(0)
    facts.update(
        gpu=card.name, capability=list(torch.cuda.get_device_capability(0)), memory=card.total_memory,
        multiprocessors=card.multi_processor_count, l2_bytes=card.L2_cache_size,
        cudnn=torch.backends.cudnn.version(), tf32_matmul=torch.backends.cuda.matmul.allow_tf32,
        tf32_cudnn=torch.backends.cudnn.allow_tf32,
    )
print(json.dumps(facts))
"""


def ask(command: list[str], cwd: Path | None = None) -> str | None:
    """The output of a program, or None where it is absent or fails."""
    try:
        answer = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def find_nvcc() -> str | None:
    """The CUDA compiler, where setup.py looks for it."""
    toolkit = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which(f"{toolkit}/bin/nvcc")


def cards_of_driver() -> list[str]:
    """The cards that nvidia-smi lists."""
    answer = ask(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    return answer.splitlines() if answer else []


def facts_of_torch() -> dict[str, Any]:
    """What torch says of itself and of the first card; an ``error`` where it cannot be imported."""
    try:
        answer = subprocess.run([sys.executable, "-c", QUESTION], capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return {"cuda_available": False, "error": f"it gave no answer within {TIMEOUT_S:.0f} s"}
    if answer.returncode != 0:
        return {"cuda_available": False, "error": answer.stderr.strip().splitlines()[-1]}
    return dict(json.loads(answer.stdout.strip().splitlines()[-1]))


def obstacle(cards: list[str], torch_facts: dict[str, Any]) -> tuple[str, int] | None:
    """Why nothing can be checked, in one sentence, with the exit status: 0 only where there is no GPU at all."""
    if torch_facts["cuda_available"]:
        return None
    if not cards:
        return "skipped: neither nvidia-smi nor torch.cuda finds a GPU, so nothing can be checked on one here", 0
    if "error" in torch_facts:
        return f"nvidia-smi lists {cards[0]}, but {sys.executable} cannot import torch: {torch_facts['error']}", 1
    return (
        f"nvidia-smi lists {cards[0]}, but torch {torch_facts['torch']} of {sys.executable} sees no CUDA device: "
        "install a CUDA build of torch that fits the driver",
        1,
    )


def collect(torch_facts: dict[str, Any], root: Path) -> dict[str, Any]:
    """The head of every result: card, clocks, driver, versions, commit, time."""
    fields = ("driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "power.limit")
    answer = ask(["nvidia-smi", "--id=0", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]) or ""
    nvcc = find_nvcc()
    return {
        **torch_facts,
        **dict(zip(fields, (value.strip() for value in answer.split(",")), strict=False)),
        "nvcc": ((ask([nvcc, "--version"]) if nvcc else None) or "absent").splitlines()[-1],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "commit": ask(["git", "describe", "--always", "--dirty", "--abbrev=12"], root),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
