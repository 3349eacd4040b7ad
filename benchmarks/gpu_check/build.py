"""Stage build: the extension in place, for the visible card only, and the program of the micro-benchmarks."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.machine import find_nvcc
from benchmarks.gpu_check.process import Finished, run_limited
from benchmarks.gpu_check.stages import Context, Report

SOURCE = Path(__file__).with_name("unknowns.cu")


def architecture(capability: Sequence[int]) -> str:
    """The card's compute capability as torch writes it; for Hopper with the instructions that only it has."""
    name = f"{capability[0]}.{capability[1]}"
    return f"{name}a" if name == "9.0" else name


def compile_command(nvcc: str, capability: Sequence[int], program: Path) -> list[str]:
    """How the micro-benchmarks are compiled."""
    number = architecture(capability).replace(".", "")
    code = f"arch=compute_{number},code=sm_{number}"
    return [nvcc, "-std=c++17", "-O3", "-gencode", code, "-o", str(program), str(SOURCE)]


def unknowns_program(context: Context) -> Path:
    """Where the program of the micro-benchmarks lies."""
    return context.work / "unknowns"


def run(context: Context) -> Report:
    """Builds both at once."""
    nvcc = find_nvcc()
    if nvcc is None:
        return Report(failed=["nvcc was not found: install the CUDA toolkit, or put its bin folder on PATH"])
    capability = context.facts["capability"]
    program = unknowns_program(context)
    program.unlink(missing_ok=True)
    commands = {
        "extension": [
            *(sys.executable, "setup.py", "-q", "build_ext", "--inplace"),
            *("--build-temp", str(context.work / "extension")),
        ],
        "micro-benchmarks": compile_command(nvcc, capability, program),
    }
    environment = {"MDPROP_CUDA": "1", "MDPROP_EMULATE": "0", "TORCH_CUDA_ARCH_LIST": architecture(capability)}

    def build(command: list[str]) -> Finished:
        return run_limited(command, seconds=context.deadline.left(), cwd=context.root, environment=environment)

    with ThreadPoolExecutor() as pool:
        finished = dict(zip(commands, pool.map(build, commands.values()), strict=True))
    report = Report()
    for name, result in finished.items():
        if result.status is None:
            report.cut_off.append(name)
        elif result.status != 0:
            report.failed.append(f"{name}: {last_error(result)}")
    report.details = {
        "architecture": architecture(capability),
        "seconds_of": {name: round(result.seconds, 1) for name, result in finished.items()},
        "output": {name: result.tail for name, result in finished.items() if result.tail},
    }
    if report.verdict == "passed":
        report.details.update(what_was_built(context))
        without = [name for name, devices in report.details["ops"].items() if "cuda" not in devices]
        report.details["summary"] = f"sm_{architecture(capability)}"
        if without:
            report.details["summary"] += f", no CUDA kernel: {', '.join(without)}"
    return report


def last_error(result: Finished) -> str:
    """The line of a build's output that says what is wrong."""
    lines = [line for line in result.tail.splitlines() if "error" in line.lower()] or result.tail.splitlines()
    return lines[0] if lines else f"status {result.status}"


def what_was_built(context: Context) -> dict[str, Any]:
    """The package's own account of it: versions, architectures, and the devices of each op."""
    answer = run_limited([sys.executable, "-m", "mdprop_ext.info", "--json"], seconds=60, cwd=context.root)
    if answer.status != 0:
        raise RuntimeError(f"the package that was built cannot be imported: {answer.tail.splitlines()[-1:]}")
    info = json.loads(answer.output[answer.output.index("{") :])
    if info["extension"] is None:
        raise RuntimeError(f"the module that was built cannot be loaded: {info['extension_error']}")
    return {"extension": info["extension"], "ops": info["ops"]}
