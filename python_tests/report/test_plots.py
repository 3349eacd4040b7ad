from __future__ import annotations

from pathlib import Path

import numpy
import pytest
from PIL import Image
from recipe_cases import fake_metrics

from mdprop_ext.report import plot_robustness, plot_training
from mdprop_ext.report.robustness import _points
from mdprop_ext.report.training import _running_mean


def pixels(path: Path) -> numpy.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return numpy.asarray(image.convert("RGB"))


def history(steps: int) -> list[dict[str, float]]:
    records = [{"step": step, "loss": 2 / step} for step in range(1, steps + 1)]
    for record in records[::2]:
        record["val_recall_at_1"] = 0.5
    return records


def test_training_curves(tmp_path: Path) -> None:
    plot_training({"plain": history(9)}, tmp_path / "one.png")
    plot_training({"plain": history(9), "mdprop": history(5)}, tmp_path / "two.png")
    one, two = pixels(tmp_path / "one.png"), pixels(tmp_path / "two.png")
    assert one.shape == two.shape
    assert (one != two).any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]


def test_robustness_has_a_panel_an_attack(tmp_path: Path) -> None:
    metrics = fake_metrics(branches=("main", "worst"))
    plot_robustness({"plain": metrics, "mdprop": fake_metrics(0.95)}, tmp_path / "two.png")
    single = {**metrics, "robust_grid": [row for row in metrics["robust_grid"] if row["attack"] == "st"]}
    plot_robustness({"plain": single}, tmp_path / "one.png")
    assert pixels(tmp_path / "two.png").shape[1] == 2 * pixels(tmp_path / "one.png").shape[1]


def test_points_begin_with_clean_recall_and_go_by_radius() -> None:
    metrics = fake_metrics(0.9, branches=("main", "worst"))
    metrics["robust_grid"].reverse()
    radii, recalls = zip(*_points(metrics, attack="st", steps=5, branch="main"), strict=True)
    assert radii == (0.0, 4.0, 8.0)
    assert recalls == pytest.approx((90.0, 80.0, 70.0))
    assert _points(metrics, attack="st", steps=1, branch="main") == [(0.0, 90.0)]


def test_an_empty_grid(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="robust_grid, got none"):
        plot_robustness({"plain": {**fake_metrics(), "robust_grid": []}}, tmp_path / "none.png")
    assert not any(tmp_path.iterdir())


def test_running_mean_starts_at_the_first_value() -> None:
    assert _running_mean([3.0, 3.0, 3.0]) == pytest.approx([3.0, 3.0, 3.0])
    means = _running_mean([1.0] + [0.0] * 30)
    assert means[0] == 1.0
    assert means[-1] < 0.05
