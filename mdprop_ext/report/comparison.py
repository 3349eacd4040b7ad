"""Several recipes, several runs of each: one table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from mdprop_ext.recipes.evaluation import PROTOCOL_ATTACKS


def comparison_table(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[list[str], list[list[str]]]:
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


def mean_metrics(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Averages the part of ``metrics.json`` that is plotted.

    Args:
        runs: Contents of ``metrics.json``, one a seed.

    Returns:
        ``test`` with ``recall_at_1``, and ``robust_grid``.
    """
    grid = [
        {**rows[0], "recall_at_1": statistics.mean(row["recall_at_1"] for row in rows)}
        for rows in zip(*(run["robust_grid"] for run in runs), strict=True)
    ]
    return {"test": {"recall_at_1": statistics.mean(run["test"]["recall_at_1"] for run in runs)}, "robust_grid": grid}


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1f}"
