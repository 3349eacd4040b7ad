"""The picture of training runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdprop_ext.report._style import add_legend, colour, marker, new_panels, plain_text, save_png

_SMOOTHING = 0.9


def plot_training(histories: Mapping[str, Sequence[Mapping[str, float]]], path: str | Path) -> None:
    """Plots the loss and the validation R@1 of training runs; see :func:`training_figure`.

    Args:
        histories: Lines of ``log.jsonl`` by the name of the run; each has ``step`` and ``loss``, some have
            ``val_recall_at_1``.
        path: The PNG file to write.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    save_png(training_figure(histories), path)


def training_figure(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> Any:
    """Draws the loss step by step in a pale line and as a running mean in a strong one, and validation R@1 beside it.

    Args:
        histories: Lines of ``log.jsonl`` by the name of the run; each has ``step`` and ``loss``, some have
            ``val_recall_at_1``.

    Returns:
        The matplotlib figure.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    figure, ((loss_axis, recall_axis),) = new_panels(2)
    for index, (name, history) in enumerate(histories.items()):
        steps = [record["step"] for record in history]
        losses = [record["loss"] for record in history]
        loss_axis.plot(steps, losses, color=colour(index), alpha=0.25, linewidth=0.8)
        # A line of one point would not be seen.
        point = marker(index) if len(steps) == 1 else None
        loss_axis.plot(steps, _running_mean(losses), color=colour(index), linewidth=1.8, marker=point)
        measured = [record for record in history if "val_recall_at_1" in record]
        recall_axis.plot(
            [record["step"] for record in measured],
            [100 * record["val_recall_at_1"] for record in measured],
            color=colour(index),
            marker=marker(index),
            markersize=4.5,
            linewidth=1.8,
            label=plain_text(name),
        )
    loss_axis.set(title="Training", xlabel="step", ylabel="loss")
    recall_axis.set(title="Validation", xlabel="step", ylabel="R@1 in %")
    for axis in (loss_axis, recall_axis):
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_xlim(left=0)
    add_legend(figure)
    return figure


def _running_mean(values: Sequence[float]) -> list[float]:
    """Exponential means, corrected for their start at zero."""
    means, total, weight = [], 0.0, 0.0
    for value in values:
        total = _SMOOTHING * total + (1 - _SMOOTHING) * value
        weight = _SMOOTHING * weight + (1 - _SMOOTHING)
        means.append(total / weight)
    return means
