from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from figure_checks import decoded, texts_inside

from mdprop_ext.report import plot_adversarial_grid
from mdprop_ext.report.adversarial_grid import adversarial_grid_figure, magnification


def images(channels: int, largest: int, count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    clean = torch.randint(40, 200, (count, channels, 8, 8)).byte()
    change = torch.randint(-largest, largest + 1, clean.shape)
    change.view(-1)[:2] = torch.tensor([largest, -largest])
    return clean, (clean + change).byte()


@pytest.mark.parametrize("channels", [1, 3])
def test_columns_are_clean_change_and_attacked(channels):
    clean, attacked = images(channels, 5)
    weaker = ((clean.short() + attacked.short()) // 2).byte()
    figure = adversarial_grid_figure(clean, {"st": attacked, "mt5": weaker})
    shown = [axis.images[0].get_array() for axis in figure.axes]
    assert len(shown) == 3 * 5
    assert [axis.get_title() for axis in figure.axes[:5]] == ["clean", "change x 25", "ST", "change x 25", "MT5"]
    expected = attacked[1].permute(1, 2, 0).squeeze(2).numpy()
    assert (shown[5 + 2] == expected).all()
    change = shown[5 + 1].astype(int) - 128
    assert (change == 25 * (expected.astype(int) - shown[5].astype(int))).all()
    assert texts_inside(figure)


@pytest.mark.parametrize(("largest", "factor"), [(0, 1), (1, 127), (16, 7), (127, 1), (150, 1)])
def test_magnification_keeps_changes_within_the_range(largest, factor):
    clean = torch.full((1, 1, 2, 2), 100, dtype=torch.uint8)
    attacked = clean.clone()
    attacked[0, 0, 0, 0] += largest
    assert magnification(clean, {"st": attacked}) == factor


def test_grey_levels_are_not_stretched(tmp_path: Path):
    clean, attacked = images(1, 3)
    plot_adversarial_grid(clean, {"pgd": attacked}, tmp_path / "grid.png")
    levels = numpy.unique(decoded(tmp_path / "grid.png"))
    assert 128 in levels  # no change is this grey
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_errors():
    clean, attacked = images(1, 3)
    with pytest.raises(ValueError, match="expected an image and an attack at least, got 3 and 0"):
        adversarial_grid_figure(clean, {})
    with pytest.raises(ValueError, match=r"attacked: expected shape \[3, 1, 8, 8\], got .* for 'st'"):
        adversarial_grid_figure(clean, {"st": attacked[:2]})
