"""What commands print in the end."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdprop_ext._words import counted
from mdprop_ext.recipes.evaluation import PROTOCOL_EPS, PROTOCOL_STEPS


def print_training(metrics: Mapping[str, Any], out: Path) -> None:
    """Prints R@1 of ``metrics.json``, clean and by the package's protocol."""
    print_attacks(metrics, metrics["test"], metrics["robust"], 255 * PROTOCOL_EPS, PROTOCOL_STEPS, out)


def print_attacks(
    run: Mapping[str, Any],
    clean: Mapping[str, Any],
    attacks: Mapping[str, Mapping[str, Any]],
    eps_255: float,
    steps: int,
    out: Path,
) -> None:
    """Prints R@1, clean and under attacks of one radius and number of steps, in a line."""
    attacked = ", ".join(f"{name} {_percent(each)}" for name, each in attacks.items())
    settings = f"eps {eps_255:g}/255, {counted(steps, 'step')}"
    sys.stdout.write(
        f"{run['recipe']}: R@1 {_percent(clean)} clean; attacked ({settings}): {attacked}; results in {out}\n"
    )


def print_grid(metrics: Mapping[str, Any], out: Path) -> None:
    """Prints R@1 of ``metrics.json`` under the attacks that were asked for.

    A line for each attack and number of steps, through branch main and, where there are several, the worst of them.
    """
    grid: Sequence[Mapping[str, Any]] = metrics["robust_grid"]
    lines: dict[tuple[str, int, str], list[str]] = {}
    for row in grid:
        if row["branch"] in ("main", "worst"):
            recalls = lines.setdefault((row["attack"], row["steps"], row["branch"]), [])
            recalls.append(f"eps {row['eps_255']:g}/255 {_percent(row)}")
    sys.stdout.write(f"{metrics['recipe']}: R@1 {_percent(metrics['test'])} clean; results in {out}\n")
    for (attack, steps, branch), recalls in lines.items():
        through = "worst branch" if branch == "worst" else f"branch {branch}"
        sys.stdout.write(f"  {attack}, {counted(steps, 'step')}, {through}: {', '.join(dict.fromkeys(recalls))}\n")


def _percent(measured: Mapping[str, Any]) -> str:
    return f"{100 * measured['recall_at_1']:.1f} %"
