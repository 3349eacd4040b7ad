from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from figure_checks import decoded, labels_below, texts_inside
from recipe_cases import fake_metrics

from mdprop_ext.report import plot_robustness
from mdprop_ext.report.robustness import robustness_figure


def with_steps(metrics: dict[str, Any], *steps: int) -> dict[str, Any]:
    rows = [
        {**row, "steps": count, "recall_at_1": row["recall_at_1"] - count / 100}
        for row in metrics["robust_grid"]
        for count in steps
    ]
    return {**metrics, "robust_grid": rows}


def lines(axis: Any) -> list[tuple[list[float], list[float]]]:
    """Data of all lines but those that explain."""
    return [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axis.lines if len(line.get_xdata())]


def test_a_panel_an_attack_and_a_line_a_run_and_branch():
    metrics = fake_metrics(0.9, branches=("main", "worst"))
    metrics["robust_grid"].reverse()
    figure = robustness_figure({"plain": metrics, "mdprop": fake_metrics(0.95)})
    assert sorted(axis.get_title() for axis in figure.axes) == ["Multi-targeted (MT, T = 5)", "Single-targeted (ST)"]
    for axis in figure.axes:
        (radii, main), (_, worst), (_, other) = lines(axis)
        assert radii == [0.0, 4.0, 8.0]
        assert main == worst == pytest.approx([90.0, 80.0, 70.0])
        assert other == pytest.approx([95.0, 85.0, 75.0])
        assert [line.get_linestyle() for line in axis.lines[:3]] == ["-", "--", "-"]
        assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "4", "8"]
    assert labels_below(figure) == ["plain", "mdprop", "worst branch"]


def test_panels_by_steps_where_several_were_measured():
    figure = robustness_figure({"plain": with_steps(fake_metrics(0.9), 1, 5)})
    top, *_, bottom = figure.axes
    assert len(figure.axes) == 4
    assert lines(top)[1] == ([0.0, 4.0, 8.0], pytest.approx([90.0, 75.0, 65.0]))  # 5 steps
    assert lines(bottom) == [
        ([0.0, 1.0, 5.0], pytest.approx([90.0, 79.0, 75.0])),
        ([0.0, 1.0, 5.0], pytest.approx([90.0, 69.0, 65.0])),
    ]
    assert bottom.get_xlabel() == "steps of the attack"
    first, second = top.lines[:2]
    assert first.get_color() != second.get_color()  # one run: colours are free for the settings
    assert not figure.legends
    legends = [axis.get_legend() for axis in figure.axes]
    texts = [[text.get_text() for text in legend.get_texts()] for legend in legends if legend is not None]
    assert texts == [["plain, 1 step", "plain, 5 steps"], ["plain, eps 4/255", "plain, eps 8/255"]]
    assert texts_inside(figure)
    assert all(legend.get_window_extent().x1 <= figure.bbox.width for legend in legends if legend is not None)


def test_many_runs_with_long_names_and_one_radius():
    runs = {f"{index} a run with $a name$ that never seems to come to its end": fake_metrics() for index in range(5)}
    for metrics in runs.values():
        metrics["robust_grid"] = [row for row in metrics["robust_grid"] if row["eps_255"] == 4]
    figure = robustness_figure(runs)
    assert texts_inside(figure)
    assert len(labels_below(figure)) == 5
    assert len({line.get_color() for line in figure.axes[0].lines}) == 5
    # Its legend takes no room from the panels.
    one = robustness_figure({"plain": next(iter(runs.values()))})
    one.draw_without_rendering()
    heights = [each.axes[0].get_window_extent().height for each in (figure, one)]
    assert heights[0] > 0.97 * heights[1]


def test_panels_cover_the_same_range():
    metrics = fake_metrics(0.9)
    metrics["robust_grid"][0]["recall_at_1"] = 0.1
    first, second = robustness_figure({"plain": metrics}).axes
    assert first.get_ylim() == second.get_ylim()


def test_the_file(tmp_path: Path):
    for name in ("one.png", "two.png"):
        plot_robustness({"plain": fake_metrics()}, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert decoded(tmp_path / "one.png").std() > 5


def test_an_empty_grid(tmp_path: Path):
    with pytest.raises(ValueError, match="robust_grid, got none"):
        plot_robustness({"plain": {**fake_metrics(), "robust_grid": []}}, tmp_path / "none.png")
    assert not any(tmp_path.iterdir())
