"""The committed record of every CUDA kernel: what a build for each architecture gave it, and what its code must hold.

``csrc/kernel_record.json`` gives registers, spills, stack and shared memory of each kernel as ptxas reports them, and
which kinds of instructions its machine code has. A build is compared with it, so that a change shows in review::

    python cmake/kernel_record.py                      # build for 8.0 and 9.0a, compare
    python cmake/kernel_record.py --update             # build for every release architecture, write the record
    python cmake/kernel_record.py --coverage FILE      # every recorded kernel was run by the emulation
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cuda_tools

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "csrc" / "kernel_record.json"
CHECKED = ("8.0", "9.0a")
RELEASED = ("8.0", "8.6", "8.9", "9.0a", "10.0", "12.0")

# What machine code may hold, by the pattern of its instructions.
FEATURES = {
    "16-byte loads": r"LDG\.[\w.]*128",
    "16-byte stores": r"STG\.[\w.]*128",
    "asynchronous copies": r"LDGSTS|UBLKCP",
    "tensor cores": r"HMMA|HGMMA|BMMA|IMMA|IGMMA",
    "population counts": r"POPC",
}
FORBIDDEN = {"local memory": r"\b(LDL|STL)\b", "floating-point atomics": r"(RED|ATOM)[GS]?\.[\w.]*(F32|F64|F16)"}

Kernels = dict[str, dict[str, Any]]


def short_name(demangled: str) -> str:
    """``kernel<float, 4>`` of a demangled function, without result, namespaces, parameters and casts of numbers."""
    name = demangled.removeprefix("void ").replace("(anonymous namespace)::", "")
    name = re.sub(r"\((?:int|unsigned int|long)\)", "", name)
    name = re.sub(r"\(bool\)([01])", lambda match: ("false", "true")[int(match[1])], name)
    name = re.sub(r"(?<!\))\b\w+::", "", name)
    depth = 0
    for i, character in enumerate(name):
        depth += {"<": 1, ">": -1}.get(character, 0)
        if character == "(" and depth == 0:
            return name[:i]
    return name


def demangle(names: Iterable[str]) -> dict[str, str]:
    """Short names by mangled ones."""
    names = list(dict.fromkeys(names))
    result = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return {name: short_name(line) for name, line in zip(names, result.stdout.splitlines(), strict=True)}


def parse_ptxas(log: str) -> dict[str, Kernels]:
    """Registers, spills, stack and shared memory by architecture and mangled kernel, from ``ptxas -v``."""
    found: dict[str, Kernels] = {}
    entry: dict[str, Any] | None = None
    for line in log.splitlines():
        if match := re.search(r"Compiling entry function '(\w+)' for '(\w+)'", line):
            entry = found.setdefault(match[2], {}).setdefault(match[1], {})
        elif entry is not None and (match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores", line)):
            entry |= {"stack": int(match[1]), "spills": int(match[2])}
        elif entry is not None and (match := re.search(r"Used (\d+) registers", line)):
            shared = re.search(r"(\d+) bytes smem", line)
            entry |= {"registers": int(match[1]), "shared": int(shared[1]) if shared else 0}
            entry = None
    return found


def parse_sass(text: str) -> Iterator[tuple[str, str, str]]:
    """Architecture, mangled kernel and machine code of each kernel in the output of ``cuobjdump --dump-sass``."""
    architecture = kernel = ""
    lines: list[str] = []
    for line in text.splitlines():
        start = re.match(r"\s*Function : (\w+)|arch = (\w+)", line)
        if start and kernel:
            yield architecture, kernel, "\n".join(lines)
            kernel = ""
        if start:
            architecture, kernel, lines = start[2] or architecture, start[1] or "", []
        else:
            lines.append(line)
    if kernel:
        yield architecture, kernel, "\n".join(lines)


def collect(log: str, module: Path) -> dict[str, Kernels]:
    """The record of one build, from its log and its module. Without cuobjdump it lacks the instructions."""
    found = parse_ptxas(log)
    tool = cuda_tools.cuobjdump()
    if tool is None:
        print("the instructions of kernels are not checked: no cuobjdump on PATH, and pip could not fetch one")
    else:
        sass = subprocess.run([tool, "--dump-sass", module], capture_output=True, text=True, check=True).stdout
        for architecture, kernel, code in parse_sass(sass):
            if entry := found.get(architecture, {}).get(kernel):
                entry["code"] = [name for name, pattern in FEATURES.items() if re.search(pattern, code)]
                entry["faults"] = [name for name, pattern in FORBIDDEN.items() if re.search(pattern, code)]
    short = demangle(kernel for kernels in found.values() for kernel in kernels)
    return {
        architecture: {
            short[kernel]: entry for kernel, entry in sorted(kernels.items(), key=lambda item: short[item[0]])
        }
        for architecture, kernels in sorted(found.items())
    }


def faults(record: dict[str, Kernels]) -> list[str]:
    """What no kernel may have."""
    wrong = []
    for architecture, kernels in record.items():
        for kernel, entry in kernels.items():
            found = [f"{key} = {entry[key]}" for key in ("spills", "stack") if entry[key]] + entry.get("faults", [])
            wrong += [f"{kernel} ({architecture}): {fault}" for fault in found]
    return wrong


def differences(recorded: dict[str, Kernels], built: dict[str, Kernels]) -> list[str]:
    """What a build changed, for the architectures that it was made for."""
    lines = []
    for architecture, kernels in built.items():
        known = recorded.get(architecture, {})
        lines += [f"{kernel} ({architecture}): not in the build" for kernel in known.keys() - kernels.keys()]
        for kernel, entry in kernels.items():
            if kernel not in known:
                lines.append(f"{kernel} ({architecture}): not in the record")
                continue
            for key in ("registers", "spills", "stack", "shared", "code"):
                if key in entry and entry[key] != known[kernel].get(key):
                    lines.append(f"{kernel} ({architecture}): {key} {known[kernel].get(key)} -> {entry[key]}")
    return sorted(lines)


def nvcc_version() -> str:
    """The release of nvcc, such as ``13.0``."""
    text = subprocess.run([cuda_tools.nvcc() or "nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"release (\d+\.\d+)", text)
    return match[1] if match else "unknown"


def check(log: str, module: Path) -> int:
    """Compares a build with the record; prints what differs."""
    built = collect(log, module)
    document = json.loads(RECORD.read_text())
    wrong = faults(built)
    if document["nvcc"] == nvcc_version():
        wrong += differences(document["kernels"], built)
    else:
        print(f"registers are not compared: the record is of nvcc {document['nvcc']}, this is {nvcc_version()}")
    for line in wrong:
        print(line)
    if wrong:
        print(
            "kernels differ from csrc/kernel_record.json: if that is meant, run python cmake/kernel_record.py --update"
        )
    else:
        count = sum(len(kernels) for kernels in built.values())
        print(f"{count} kernels for {', '.join(built)}: as recorded, no spills, no local memory")
    return 1 if wrong else 0


def update() -> int:
    """Builds for every release architecture and writes the record."""
    with cuda_tools.build(RELEASED) as (log, module):
        kernels = collect(log, module)
    for line in (wrong := faults(kernels)):
        print(line)
    for entries in kernels.values():
        for entry in entries.values():
            entry.pop("faults", None)
    RECORD.write_text(json.dumps({"nvcc": nvcc_version(), "kernels": kernels}, indent=1) + "\n")
    return 1 if wrong else 0


def check_coverage(path: Path) -> int:
    """Whether every recorded kernel, template arguments included, was run by the emulation."""
    names = {kernel for kernels in json.loads(RECORD.read_text())["kernels"].values() for kernel in kernels}
    run = {short_name(line) for line in path.read_text().splitlines()}
    missing = sorted(names - run)
    for kernel in missing:
        print(f"{kernel}: no test runs it")
    print(f"{len(names) - len(missing)} of {len(names)} kernels were run by the emulation")
    return 1 if missing else 0


def main() -> int:
    """Parses the command line and does what it asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the record")
    parser.add_argument("--coverage", type=Path, metavar="FILE", help="compare with the kernels that the emulation ran")
    options = parser.parse_args()
    if options.coverage:
        return check_coverage(options.coverage)
    if cuda_tools.nvcc() is None or shutil.which("c++filt") is None:
        print("skipped: nvcc or c++filt was not found, so CUDA kernels cannot be compiled and compared here")
        return 0
    if options.update:
        return update()
    with cuda_tools.build(CHECKED) as (log, module):
        return check(log, module)


if __name__ == "__main__":
    sys.exit(main())
