from __future__ import annotations

import pytest
from recipe_cases import fake_metrics

from mdprop_ext.report.comparison import comparison_table, mean_metrics


def test_comparison_table() -> None:
    header, rows = comparison_table({"plain": [fake_metrics(0.8)], "mdprop": [fake_metrics(0.9), fake_metrics(0.86)]})
    assert header == ["recipe", "clean R@1", "mAP@R", "ST R@1", "MT2 R@1", "MT5 R@1", "seconds"]
    assert rows[0] == ["plain", "80.0", "26.7", "40.0", "40.0", "40.0", "2"]
    assert rows[1][:3] == ["mdprop", "88.0 ± 2.8 (+8.0)", "29.3 ± 0.9 (+2.7)"]
    assert rows[1][3] == "44.0 ± 1.4 (x1.10)"


def test_mean_metrics_averages_row_by_row() -> None:
    mean = mean_metrics([fake_metrics(0.8), fake_metrics(0.9)])
    assert mean["test"]["recall_at_1"] == pytest.approx(0.85)
    expected = fake_metrics(0.85)["robust_grid"]
    assert mean["robust_grid"] == [{**row, "recall_at_1": pytest.approx(row["recall_at_1"])} for row in expected]
