"""The report that every command leaves beside its results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdprop_ext._files import write_json
from mdprop_ext.cli.plots import write_plots
from mdprop_ext.info import collect
from mdprop_ext.report import Report, write_report
from mdprop_ext.report.run_files import RunFiles

PROVENANCE_FILE = "provenance.json"


def finish_results(out: Path, command: str, arguments: Mapping[str, Any]) -> list[Path]:
    """Writes ``provenance.json``, what was run and where, and then ``report.html``.

    Args:
        out: The folder with the results.
        command: The command's name.
        arguments: Its arguments, as JSON can hold them.

    Returns:
        The files.
    """
    write_json(out / PROVENANCE_FILE, {"command": command, "arguments": dict(arguments), "environment": collect()})
    return [out / PROVENANCE_FILE, write_report(out)]


def remake_report(folder: Path) -> Path:
    """Writes ``report.html`` anew from the files of a folder, and the plots of a run that its numbers suffice for.

    Args:
        folder: A folder that a command wrote.

    Returns:
        The report.

    Raises:
        ValueError: If the folder holds no results, or a file in it is damaged; nothing is written then.
    """
    files = RunFiles.read(folder)
    Report(files)  # raises before anything is written
    if files.metrics is not None:
        name = str(files.metrics["recipe"])
        write_plots(folder, {name: files.metrics}, {name: files.history} if files.history else None)
    return write_report(folder)
