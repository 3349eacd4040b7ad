"""The work of ``mdprop compare``: recipes by seeds, one table and two plots."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from mdprop_ext._files import write_bytes, write_json
from mdprop_ext.cli.plots import write_plots
from mdprop_ext.cli.reports import finish_results
from mdprop_ext.cli.train import run_plan
from mdprop_ext.cli.training_plan import TrainingPlan
from mdprop_ext.recipes import RunResult
from mdprop_ext.recipes.processes import is_first_process
from mdprop_ext.recipes.registry import run_folder_name
from mdprop_ext.report.comparison import comparison_table, mean_metrics


def compare_recipes(
    plans: Sequence[TrainingPlan],
    out: Path,
    *,
    arguments: Mapping[str, Any],
    device: str = "auto",
    resume: bool = False,
) -> None:
    """Trains every recipe with every seed and prints and writes what came out.

    Writes ``<recipe>-seed<s>/`` for each run, ``comparison.md``, ``comparison.json``, ``training.png`` of seed 0,
    ``robustness.png`` of the means, ``provenance.json`` and ``report.html``.

    Args:
        plans: The runs, seed by seed; other recipes are compared with that of the first one.
        out: Folder for the results.
        arguments: Those of the command, for its record.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        resume: Whether to keep the finished runs in ``out`` and to go on with an unfinished one.

    Raises:
        RunInterrupted: After Ctrl-C.
        ValueError: If the data is wrong.
    """
    results: dict[str, list[RunResult]] = {}
    folders = []
    for seed, of_seed in itertools.groupby(plans, key=lambda plan: plan.recipe.seed):
        splits = None
        for plan in of_seed:
            splits = plan.source.load(seed) if splits is None else splits
            folders.append(out / run_folder_name(plan.name, seed))
            title = f"{plan.name}, seed {seed}"
            result = run_plan(plan, folders[-1], title=title, splits=splits, device=device, resume=resume)
            results.setdefault(plan.name, []).append(result)
    if not is_first_process():
        return
    header, rows = comparison_table({name: [run.metrics for run in runs] for name, runs in results.items()})
    write_bytes(out / "comparison.md", _markdown(header, rows).encode())
    write_json(out / "comparison.json", {name: [run.metrics for run in runs] for name, runs in results.items()})
    plots = write_plots(
        out,
        {name: mean_metrics([run.metrics for run in runs]) for name, runs in results.items()},
        {name: runs[0].history for name, runs in results.items()},
    )
    reports = finish_results(out, "compare", arguments)
    _print(header, rows, [*reports, *plots, out / "comparison.md", *folders])


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _print(header: Sequence[str], rows: Sequence[Sequence[str]], paths: Sequence[Path]) -> None:
    table = Table(title="Unseen classes, in %", box=SIMPLE, pad_edge=False)
    table.add_column(header[0], no_wrap=True)
    for column in header[1:]:
        table.add_column(column, justify="right")
    for row in rows:
        # Two lines a cell, so that the table fits 80 columns.
        table.add_row(*(cell.replace(" ± ", "±").replace(" (", "\n(") for cell in row))
    console = Console()
    console.print(table)
    for path in paths:
        console.print(str(path), highlight=False, soft_wrap=True)
