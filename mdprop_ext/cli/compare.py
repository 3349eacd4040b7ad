"""The work of ``mdprop compare``: recipes by seeds, one table and two plots."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from mdprop_ext._files import write_bytes, write_json
from mdprop_ext.cli.data_source import DataSource
from mdprop_ext.cli.plots import write_plots
from mdprop_ext.cli.progress import RunProgress
from mdprop_ext.recipes import Recipe, RunResult, TrainConfig, apply_settings, recipe_class, run_training
from mdprop_ext.recipes._arguments import check_integer
from mdprop_ext.recipes.evaluation import PROTOCOL_ATTACKS


def compare_recipes(
    names: Sequence[str],
    source: DataSource,
    out: Path,
    *,
    settings: Sequence[str] = (),
    epochs: int | None = None,
    seeds: int = 1,
) -> None:
    """Trains every recipe with every seed and prints and writes what came out.

    Writes ``<recipe>-seed<s>/`` for each run, ``comparison.md``, ``comparison.json``, ``training.png`` of seed 0 and
    ``robustness.png`` of the means.

    Args:
        names: Recipes; the others are compared with the first one.
        source: The images.
        out: Folder for the results.
        settings: ``key=value`` pairs; each goes to the recipes that have the key.
        epochs: Passes of the batch sampler; None leaves the number of steps.
        seeds: Number of runs of each recipe.

    Raises:
        RunInterrupted: After Ctrl-C.
        ValueError: If a name, key, value or the data is wrong.
    """
    check_integer("seeds", seeds, least=1)
    configured = {name: _configure(name, names, settings, epochs) for name in names}
    results: dict[str, list[RunResult]] = {name: [] for name in configured}
    for seed in range(seeds):
        splits = source.load(seed)
        for name, (recipe_config, config) in configured.items():
            recipe: Recipe[Any] = recipe_class(name)(recipe_config, seed=seed)
            with RunProgress(f"{name}, seed {seed}") as progress:
                result = run_training(
                    recipe,
                    splits,
                    config,
                    out / f"{name}-seed{seed}",
                    data=source.describe(),
                    observe=progress.observe,
                    observe_evaluation=progress.observe_evaluation,
                )
            results[name].append(result)
    header, rows = comparison_table({name: [run.metrics for run in runs] for name, runs in results.items()})
    write_bytes(out / "comparison.md", _markdown(header, rows).encode())
    write_json(out / "comparison.json", {name: [run.metrics for run in runs] for name, runs in results.items()})
    plots = write_plots(
        out,
        {name: _mean_metrics([run.metrics for run in runs]) for name, runs in results.items()},
        {name: runs[0].history for name, runs in results.items()},
    )
    _print(
        header,
        rows,
        [*plots, out / "comparison.md", *(out / f"{name}-seed{s}" for name in results for s in range(seeds))],
    )


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


def _configure(name: str, names: Sequence[str], settings: Sequence[str], epochs: int | None) -> tuple[Any, TrainConfig]:
    """Applies the settings that a recipe knows; one that no recipe knows is an error."""
    own = recipe_class(name).config_class()
    known = _keys(own)
    elsewhere = {key for other in names for key in _keys(recipe_class(other).config_class())} - known
    applicable = [setting for setting in settings if setting.partition("=")[0].strip() not in elsewhere]
    recipe_config, config = apply_settings([own, TrainConfig(epochs=epochs)], applicable)
    return recipe_config, config


def _keys(config: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(config)}


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
