"""The work of ``mdprop compare``: recipes by seeds, one table and two plots."""

from __future__ import annotations

import dataclasses
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
from mdprop_ext.cli.reports import finish_results
from mdprop_ext.recipes import Recipe, RunResult, TrainConfig, apply_settings, recipe_class, run_training
from mdprop_ext.recipes._arguments import check_integer
from mdprop_ext.report.comparison import comparison_table, mean_metrics


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

    Writes ``<recipe>-seed<s>/`` for each run, ``comparison.md``, ``comparison.json``, ``training.png`` of seed 0,
    ``robustness.png`` of the means, ``provenance.json`` and ``report.html``.

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
        {name: mean_metrics([run.metrics for run in runs]) for name, runs in results.items()},
        {name: runs[0].history for name, runs in results.items()},
    )
    reports = finish_results(out, "compare", {"recipes": names, "seeds": seeds, "data": source.describe()})
    _print(
        header,
        rows,
        [*reports, *plots, out / "comparison.md", *(out / f"{name}-seed{s}" for name in results for s in range(seeds))],
    )


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
