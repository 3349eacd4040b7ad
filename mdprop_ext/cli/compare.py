"""The work of ``mdprop compare``: recipes by seeds, one table and two plots."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from mdprop_ext._files import write_bytes, write_json
from mdprop_ext.cli.plots import write_plots
from mdprop_ext.cli.train import run_plan
from mdprop_ext.cli.training_plan import TrainingPlan
from mdprop_ext.recipes import RunResult
from mdprop_ext.recipes.evaluation import PROTOCOL_ATTACKS
from mdprop_ext.recipes.processes import is_first_process


def compare_recipes(plans: Sequence[TrainingPlan], out: Path, *, device: str = "auto", resume: bool = False) -> None:
    """Trains every recipe with every seed and prints and writes what came out.

    Writes ``<recipe>-seed<s>/`` for each run, ``comparison.md``, ``comparison.json``, ``training.png`` of seed 0 and
    ``robustness.png`` of the means.

    Args:
        plans: The runs, seed by seed; other recipes are compared with that of the first one.
        out: Folder for the results.
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
            folders.append(out / f"{plan.name.replace(':', '.')}-seed{seed}")
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
        {name: _mean_metrics([run.metrics for run in runs]) for name, runs in results.items()},
        {name: runs[0].history for name, runs in results.items()},
    )
    _print(header, rows, [*plots, out / "comparison.md", *folders])


def comparison_table(results: dict[str, list[dict[str, Any]]]) -> tuple[list[str], list[list[str]]]:
    """Makes a table of text, one row a recipe.

    Args:
        results: Contents of ``metrics.json`` by recipe, one a seed.

    Returns:
        Titles of the columns, and rows: mean with the sample standard deviation over seeds, and the difference (clean)
        or ratio (attacked) of means to the first recipe.
    """
    attacked = [f"{attack.upper()} R@1" for attack in PROTOCOL_ATTACKS]
    header = ["recipe", "clean R@1", "mAP@R", *attacked, "seconds"]
    baseline = next(iter(results.values()))
    rows = []
    for name, runs in results.items():
        is_baseline = runs is baseline
        cells = [name]
        for key in ("recall_at_1", "map_at_r"):
            ours, base = ([100 * run["test"][key] for run in group] for group in (runs, baseline))
            gain = f" ({statistics.mean(ours) - statistics.mean(base):+.1f})"
            cells.append(_spread(ours) + ("" if is_baseline else gain))
        for attack in PROTOCOL_ATTACKS:
            ours, base = ([100 * run["robust"][attack]["recall_at_1"] for run in group] for group in (runs, baseline))
            ratio = f" (x{statistics.mean(ours) / statistics.mean(base):.2f})" if statistics.mean(base) else ""
            cells.append(_spread(ours) + ("" if is_baseline else ratio))
        cells.append(f"{statistics.mean(run['seconds'] for run in runs):.0f}")
        rows.append(cells)
    return header, rows


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1f}"


def _mean_metrics(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The part of the metrics that is plotted, averaged over seeds."""
    grid = [
        {**rows[0], "recall_at_1": statistics.mean(row["recall_at_1"] for row in rows)}
        for rows in zip(*(run["robust_grid"] for run in runs), strict=True)
    ]
    return {"test": {"recall_at_1": statistics.mean(run["test"]["recall_at_1"] for run in runs)}, "robust_grid": grid}


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
