"""Commands that belong to other modules of the package or to its source checkout."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import mdprop_ext


def run_module_main(module: str, arguments: Sequence[str]) -> int:
    """Runs ``main(argv) -> status`` of a module.

    Args:
        module: Its dotted name.
        arguments: Arguments for it.

    Returns:
        The exit status.
    """
    status = importlib.import_module(module).main(list(arguments))
    return int(status or 0)


def run_benchmarks(arguments: Sequence[str]) -> int:
    """Runs ``python -m benchmarks`` of the source checkout, in a process of its own for undisturbed timings.

    Args:
        arguments: Arguments for it.

    Returns:
        The exit status.

    Raises:
        ValueError: If there is no source checkout.
    """
    root = find_benchmarks([Path(mdprop_ext.__file__).parents[1], Path.cwd()])
    search_path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": search_path}, check=False).returncode


def find_benchmarks(roots: Sequence[Path]) -> Path:
    """Returns the first folder that holds the benchmarks.

    Raises:
        ValueError: If none does.
    """
    for root in roots:
        if (root / "benchmarks" / "__main__.py").is_file():
            return root
    raise ValueError("bench: the benchmarks are not installed with the package, run this in a checkout of its source")
