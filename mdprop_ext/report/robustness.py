"""The picture of clean against attacked retrieval."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdprop_ext.report._style import add_legend, colour, marker, new_panels, plain_text, save_png

_MOST_TICKS = 8


def plot_robustness(results: Mapping[str, Mapping[str, Any]], path: str | Path) -> None:
    """Plots R@1 under attack, one column of panels an attack; see :func:`robustness_figure`.

    Args:
        results: Contents of ``metrics.json`` by the name of the run; all with the same attacks.
        path: The PNG file to write.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there are no results, or a ``robust_grid`` is empty.
    """
    save_png(robustness_figure(results), path)


def robustness_figure(results: Mapping[str, Mapping[str, Any]]) -> Any:
    """Draws R@1 over the radius and, where several numbers of steps were measured, over the steps below it.

    Lines begin at 0 with R@1 on clean images. Runs differ by colour; numbers of steps, or radii below, by marker. A
    dashed line is the worst case over branches, where it was measured.

    Args:
        results: Contents of ``metrics.json`` by the name of the run; all with the same attacks.

    Returns:
        The matplotlib figure.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there are no results, or a ``robust_grid`` is empty.
    """
    grid = [row for metrics in results.values() for row in metrics["robust_grid"]]
    attacks = list(dict.fromkeys(row["attack"] for row in grid))
    if not attacks:
        raise ValueError("results: expected at least one with rows in robust_grid, got none")
    by_steps = len({row["steps"] for row in grid}) > 1
    figure, rows = new_panels(len(attacks), rows=2 if by_steps else 1)
    for column, attack in enumerate(attacks):
        rows[0][column].set(title=attack_title(attack), xlabel="radius of the attack in 1/255", ylabel="R@1 in %")
        _draw_lines(rows[0][column], results, attack, over="eps_255", fixed="steps")
        if by_steps:
            rows[1][column].set(xlabel="steps of the attack", ylabel="R@1 in %")
            _draw_lines(rows[1][column], results, attack, over="steps", fixed="eps_255")
    _share_limits([axis for row in rows for axis in row])
    add_legend(figure)
    return figure


def attack_title(attack: str) -> str:
    """The name of an attack in words, from its short one."""
    if attack == "st":
        return "Single-targeted (ST)"
    if attack == "pgd":
        return "Untargeted (PGD)"
    return f"Multi-targeted (MT, T = {attack.removeprefix('mt')})"


def _draw_lines(axis: Any, results: Mapping[str, Mapping[str, Any]], attack: str, *, over: str, fixed: str) -> None:
    """Draws a line for each run, value of ``fixed`` and branch."""
    grid = [row for metrics in results.values() for row in metrics["robust_grid"]]
    settings = sorted({row[fixed] for row in grid})
    for run, (name, metrics) in enumerate(results.items()):
        for index, setting in enumerate(settings):
            label = plain_text(name)
            if fixed == "eps_255":
                label += f", eps {setting:g}/255"
            elif len(settings) > 1:
                label += f", {setting} step{'s' * (setting != 1)}"
            for branch, style in (("main", "-"), ("worst", "--")):
                points = _points(metrics, over, {"attack": attack, fixed: setting, "branch": branch})
                if len(points) > 1:
                    axis.plot(
                        *zip(*points, strict=True),
                        style,
                        color=colour(run),
                        marker=marker(index),
                        markersize=4.5,
                        linewidth=1.8,
                        label=label if branch == "main" else f"{label}, worst branch",
                    )
    ticks = sorted({0.0, *(float(row[over]) for row in grid if row["attack"] == attack)})
    if len(ticks) <= _MOST_TICKS:
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])


def _points(metrics: Mapping[str, Any], over: str, chosen: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Radius or steps, and R@1 in percent; the clean point first."""
    rows = [
        (row[over], 100 * row["recall_at_1"])
        for row in metrics["robust_grid"]
        if all(row[key] == value for key, value in chosen.items())
    ]
    return [(0.0, 100 * metrics["test"]["recall_at_1"]), *sorted(row for row in rows if row[0] > 0)]


def _share_limits(axes: list[Any]) -> None:
    """Lets all panels cover the same range of R@1, so that heights compare."""
    limits = [axis.get_ylim() for axis in axes]
    for axis in axes:
        axis.set_ylim(max(-1.0, min(low for low, _ in limits)), min(101.0, max(high for _, high in limits)))
