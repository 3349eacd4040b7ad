"""The picture of clean against attacked retrieval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdprop_ext._words import counted
from mdprop_ext.report._style import add_legend, add_row_legends, colour, marker, new_panels, plain_text, save_png

_MOST_TICKS = 8
_GREY = "0.35"


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

    Lines begin at 0 with R@1 on clean images. Runs differ by colour; numbers of steps, or radii below, by marker, and
    by colour too where there is one run. A dashed line is the worst case over branches, where it was measured.

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
    steps, radii = (sorted({row[key] for row in grid}) for key in ("steps", "eps_255"))
    figure, rows = new_panels(len(attacks), rows=2 if len(steps) > 1 else 1)
    for column, attack in enumerate(attacks):
        rows[0][column].set(title=attack_title(attack), xlabel="radius of the attack in 1/255", ylabel="R@1 in %")
        _draw_lines(rows[0][column], results, attack, over="eps_255", fixed="steps", settings=steps)
        if len(steps) > 1:
            rows[1][column].set(xlabel="steps of the attack", ylabel="R@1 in %")
            _draw_lines(rows[1][column], results, attack, over="steps", fixed="eps_255", settings=radii)
    _share_limits([axis for row in rows for axis in row])
    counts = [counted(count, "step") for count in steps]
    worst = any(row["branch"] == "worst" for row in grid)
    for row, settings in zip(rows, (counts, [f"eps {radius:g}/255" for radius in radii]), strict=False):
        _explain(row[-1], list(results), settings, worst=worst)
    if len(rows) > 1:  # a colour means another thing in each row
        add_row_legends(figure, rows)
    else:
        add_legend(figure)
    return figure


def attack_title(attack: str) -> str:
    """The name of an attack in words, from its short one."""
    if attack == "st":
        return "Single-targeted (ST)"
    if attack == "pgd":
        return "Untargeted (PGD)"
    return f"Multi-targeted (MT, T = {attack.removeprefix('mt')})"


def _draw_lines(
    axis: Any,
    results: Mapping[str, Mapping[str, Any]],
    attack: str,
    *,
    over: str,
    fixed: str,
    settings: Sequence[float],
) -> None:
    """Draws a line over one key of the grid for each run, value of the other key and branch."""
    ticks = {0.0}
    for run, metrics in enumerate(results.values()):
        for index, setting in enumerate(settings):
            for branch, style in (("main", "-"), ("worst", "--")):
                points = _points(metrics, over, {"attack": attack, fixed: setting, "branch": branch})
                if len(points) > 1:
                    look = {"color": colour(run if len(results) > 1 else index), "marker": marker(index)}
                    axis.plot(*zip(*points, strict=True), style, markersize=4.5, linewidth=1.8, **look)
                    ticks |= {place for place, _ in points}
    if len(ticks) <= _MOST_TICKS:
        axis.set_xticks(sorted(ticks), [f"{tick:g}" for tick in sorted(ticks)])


def _explain(axis: Any, names: Sequence[str], settings: Sequence[str], *, worst: bool) -> None:
    """Labels colours, markers and dashes one by one; every combination would take more room than the lines."""
    if len(names) > 1:
        for run, name in enumerate(names):
            axis.plot([], [], color=colour(run), linewidth=1.8, label=plain_text(name))
    for index, setting in enumerate(settings):
        if len(names) == 1:
            look = {"color": colour(index), "linewidth": 1.8, "label": f"{plain_text(names[0])}, {setting}"}
        else:
            look = {"color": _GREY, "linestyle": "none", "label": setting}
        if len(names) == 1 or len(settings) > 1:
            axis.plot([], [], marker=marker(index), markersize=4.5, **look)
    if worst:
        axis.plot([], [], "--", color=_GREY, linewidth=1.8, label="worst branch")


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
