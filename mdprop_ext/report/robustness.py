"""The picture of clean against attacked retrieval."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdprop_ext.report._style import colour, new_panels, save_png


def plot_robustness(results: Mapping[str, Mapping[str, Any]], path: str | Path) -> None:
    """Plots R@1 over the radius of the attack, one panel an attack and one line a run and number of steps.

    The lines begin at radius 0 with R@1 on clean images. A dashed line is the worst case over branches, where it was
    measured.

    Args:
        results: Contents of ``metrics.json`` by the name of the run; all with the same attacks.
        path: The PNG file to write.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there are no results, or a ``robust_grid`` is empty.
    """
    attacks = list(dict.fromkeys(row["attack"] for metrics in results.values() for row in metrics["robust_grid"]))
    if not attacks:
        raise ValueError("results: expected at least one with rows in robust_grid, got none")
    step_counts = sorted({row["steps"] for metrics in results.values() for row in metrics["robust_grid"]})
    radii = sorted({0.0, *(row["eps_255"] for metrics in results.values() for row in metrics["robust_grid"])})
    figure, axes = new_panels(len(attacks))
    for axis, attack in zip(axes, attacks, strict=True):
        line = 0
        for name, metrics in results.items():
            for steps in step_counts:
                label = name if len(step_counts) == 1 else f"{name}, {steps} step{'s' * (steps != 1)}"
                for branch, style in (("main", "-"), ("worst", "--")):
                    points = _points(metrics, attack=attack, steps=steps, branch=branch)
                    if len(points) > 1:
                        axis.plot(
                            *zip(*points, strict=True),
                            style,
                            color=colour(line),
                            marker="o",
                            markersize=4,
                            linewidth=1.8,
                            label=label if branch == "main" else f"{label}, worst branch",
                        )
                line += 1
        axis.set(title=_title(attack), xlabel="radius of the attack in 1/255", ylabel="R@1 in %", xticks=radii)
    _share_limits(axes)
    axes[0].legend(frameon=False, loc="lower left", fontsize="small", handlelength=3)
    save_png(figure, Path(path))


def _points(metrics: Mapping[str, Any], *, attack: str, steps: int, branch: str) -> list[tuple[float, float]]:
    """Radius and R@1 in percent, the clean point first."""
    rows = [
        (row["eps_255"], 100 * row["recall_at_1"])
        for row in metrics["robust_grid"]
        if (row["attack"], row["steps"], row["branch"]) == (attack, steps, branch)
    ]
    return [(0.0, 100 * metrics["test"]["recall_at_1"]), *sorted(rows)]


def _title(attack: str) -> str:
    if attack == "st":
        return "Single-targeted (ST)"
    if attack == "pgd":
        return "Untargeted (PGD)"
    return f"Multi-targeted (MT, T = {attack.removeprefix('mt')})"


def _share_limits(axes: list[Any]) -> None:
    """Lets all panels cover the same range of R@1, so that heights compare."""
    limits = [axis.get_ylim() for axis in axes]
    for axis in axes:
        axis.set_ylim(max(-1.0, min(low for low, _ in limits)), min(101.0, max(high for _, high in limits)))
