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
        A dict that ``json`` can write. ``extension`` is None with ``extension_error`` saying why, or ``build_info()``;
        ``missing`` holds a sentence for each thing that keeps compiled kernels from running here.
    """
    error = load_extension()
    extension = None
    if error is None:
        from mdprop_ext import _C

        extension = dict(_C.build_info())
    cards = range(torch.cuda.device_count())
    capabilities = ["{}.{}".format(*torch.cuda.get_device_capability(card)) for card in cards]
    return {
        "mdprop_ext": mdprop_ext.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(card) for card in cards],
        "capabilities": capabilities,
        "backend": os.environ.get("MDPROP_BACKEND", "auto"),
        "extension": extension,
        "extension_error": error,
        "missing": [error] if extension is None else missing(extension, torch.version.cuda, capabilities),
        "ops": {name: kernels(name) for name in op_names()},
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def missing(extension: dict[str, Any], torch_cuda: str | None, capabilities: Sequence[str]) -> list[str]:
    """What keeps the CUDA kernels of a build from running, a sentence each.

    Args:
        extension: The facts of ``build_info()``.
        torch_cuda: The CUDA version that torch is built with, or None.
        capabilities: Compute capability of each visible card, such as ``"9.0"``.
    """
    if extension["cuda"] is None:
        if not capabilities:
            return []
        return ["this build has no CUDA kernels: install it again where nvcc is, with MDPROP_CUDA=1"]
    if torch_cuda is None:
        return ["the CUDA kernels of this build rest, since this torch is built without CUDA"]
    architectures = extension["cuda_architectures"]
    return [
        f"this build has no CUDA kernels for a card of capability {capability}, only for {' '.join(architectures)}: "
        f"install it again with MDPROP_CUDA=1 TORCH_CUDA_ARCH_LIST={capability}"
        for capability in sorted(set(capabilities))
        if not any(runs_on(architecture, capability) for architecture in architectures)
    ]


def runs_on(architecture: str, capability: str) -> bool:
    """Whether code for an architecture runs on a card.

    Machine code (``"86-real"``) runs on cards of its major version from its minor version on, PTX (``"86-virtual"``) on
    every later card, and either on cards of exactly its capability where it uses what they alone have (``"90a-real"``).
    """
    number, _, kind = architecture.partition("-")
    card = int(capability.replace(".", ""))
    if number.endswith("a"):
        return card == int(number[:-1])
    level = int(number.removesuffix("f"))
    return level <= card and (kind == "virtual" or level // 10 == card // 10)


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
    width = max(map(len, facts["ops"]))
    lines += [f"{name:<{width}} {' '.join(devices) or 'reference'}" for name, devices in facts["ops"].items()]
    lines += [f"{name}={value}" for name, value in facts["environment"].items()]
    # A module that is not loaded has been named above.
    lines += [f"{'missing':<12} {sentence}" for sentence in facts["missing"] if extension is not None]
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
