"""What is installed, what was built and what will run: ``python -m mdprop_ext.info [--json]``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from typing import Any

import torch

import mdprop_ext
from mdprop_ext.ops._register import NAMESPACE, load_extension, op_names

VARIABLES = (
    "MDPROP_BACKEND",
    "MDPROP_CPU_ISA",
    "MDPROP_CUDA",
    "TORCH_CUDA_ARCH_LIST",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
)


def collect() -> dict[str, Any]:
    """Gathers versions, build facts, devices, the kernels of each op and the environment variables that matter.

    Returns:
        A dict that ``json`` can write. ``extension`` is None with ``extension_error`` saying why, or ``build_info()``.
    """
    error = load_extension()
    extension = None
    if error is None:
        from mdprop_ext import _C

        extension = dict(_C.build_info())
    return {
        "mdprop_ext": mdprop_ext.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "backend": os.environ.get("MDPROP_BACKEND", "auto"),
        "extension": extension,
        "extension_error": error,
        "ops": {name: kernels(name) for name in op_names()},
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def kernels(name: str) -> list[str]:
    """The devices that an op has a compiled kernel for; every other device takes the reference."""
    qualified = f"{NAMESPACE}::{name}"
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return [key.lower() for key in ("CPU", "CUDA") if has_kernel(qualified, key)]


def render(facts: dict[str, Any]) -> str:
    """The facts as lines for a terminal."""
    lines = [
        f"{name:<12} {facts[name]}" for name in ("mdprop_ext", "python", "platform", "torch", "torch_cuda", "threads")
    ]
    lines += [
        f"{'devices':<12} {', '.join(facts['devices']) or 'no CUDA device'}",
        f"{'backend':<12} {facts['backend']}",
    ]
    extension = facts["extension"]
    if extension is None:
        lines.append(f"{'extension':<12} not loaded: {facts['extension_error']}")
    else:
        architectures = " ".join(extension["cuda_architectures"]) or "none"
        lines += [
            f"{'extension':<12} built with torch {extension['torch']}, {extension['compiler']}",
            f"{'cuda':<12} {extension['cuda'] or 'not built'}, architectures: {architectures}",
            f"{'cpu':<12} {extension['cpu_isa']} of {' '.join(extension['cpu_isas'])}",
        ]
    lines += [f"{name:<26} {' '.join(devices) or 'reference'}" for name, devices in facts["ops"].items()]
    lines += [f"{name}={value}" for name, value in facts["environment"].items()]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the facts to standard output."""
    parser = argparse.ArgumentParser(prog="python -m mdprop_ext.info", description=__doc__)
    parser.add_argument("--json", action="store_true", help="write JSON")
    options = parser.parse_args(arguments)
    facts = collect()
    sys.stdout.write((json.dumps(facts, indent=2) if options.json else render(facts)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
