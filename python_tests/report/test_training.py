from __future__ import annotations

from pathlib import Path

import pytest
from figure_checks import decoded, labels_below

from mdprop_ext.report import plot_training
from mdprop_ext.report.training import _running_mean, training_figure


def history(steps: int) -> list[dict[str, float]]:
    records = [{"step": step, "loss": 2 / step} for step in range(1, steps + 1)]
    for record in records[::2]:
        record["val_recall_at_1"] = 0.5
    return records


def test_curves_are_the_log():
    loss_axis, recall_axis = training_figure({"plain": history(9), "mdprop": history(5)}).axes
    raw, mean, *_ = loss_axis.lines
    assert raw.get_xdata().tolist() == list(range(1, 10))
    assert raw.get_ydata().tolist() == [2 / step for step in range(1, 10)]
    assert mean.get_ydata()[0] == 2
    assert mean.get_ydata()[-1] > raw.get_ydata()[-1]  # it lags behind a falling loss
    first, second = recall_axis.lines
    assert first.get_xdata().tolist() == [1, 3, 5, 7, 9]
    assert set(first.get_ydata()) == {50.0}
    assert first.get_color() == mean.get_color() != second.get_color()
    assert first.get_marker() != second.get_marker()


def test_one_step_is_seen():
    loss_axis, _ = training_figure({"plain": history(1)}).axes
    assert loss_axis.lines[1].get_marker() == "o"


def test_labels_and_legend():
    figure = training_figure({"plain": history(9), "a" * 100: history(5)})
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "R@1 in %"]
    assert labels_below(figure) == ["plain", "a" * 20 + "…" + "a" * 20]


def test_the_file_is_the_same_each_time(tmp_path: Path):
    for name in ("one.png", "two.png"):
        plot_training({"plain": history(9)}, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert min(decoded(tmp_path / "one.png").shape[:2]) > 300
    assert len(list(tmp_path.iterdir())) == 2


def test_running_mean_starts_at_the_first_value():
    assert _running_mean([3.0, 3.0, 3.0]) == pytest.approx([3.0, 3.0, 3.0])
    means = _running_mean([1.0] + [0.0] * 30)
    assert means[0] == 1.0
    assert means[-1] < 0.05
