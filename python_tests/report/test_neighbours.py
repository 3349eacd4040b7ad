from __future__ import annotations

from pathlib import Path

import pytest
import torch
from figure_checks import decoded, labels_below

from mdprop_ext.report import Retrieval, plot_neighbours
from mdprop_ext.report.neighbours import neighbours_figure


def retrieval(name: str, right: list[bool], channels: int = 1) -> Retrieval:
    shape = (channels, 6, 6)
    neighbours = torch.randint(256, (len(right), *shape)).byte()
    return Retrieval(name, torch.randint(256, shape).byte(), neighbours, torch.tensor(right))


@pytest.mark.parametrize("channels", [1, 3])
def test_frames_say_right_and_wrong(channels):
    groups = [[retrieval("clean", [True, True], channels), retrieval("ST", [False, True], channels)]] * 2
    figure = neighbours_figure(groups)
    rows = [axis for axis in figure.axes if axis.images]
    assert len(rows) == 4 * 3
    for number, axis in enumerate(rows):
        row, place = divmod(number, 3)
        own = groups[row // 2][row % 2]
        wanted = own.query if place == 0 else own.neighbours[place - 1]
        assert (axis.images[0].get_array() == wanted.permute(1, 2, 0).squeeze(2).numpy()).all()
        spine = axis.spines["left"]
        assert spine.get_visible() == (place > 0)
        if place:
            assert (spine.get_linestyle() == "-") == bool(own.right[place - 1])
    right, wrong = rows[1].spines["left"], rows[4].spines["left"]
    assert right.get_edgecolor() != wrong.get_edgecolor()
    assert [axis.get_title() for axis in rows[:3]] == ["query", "nearest 1", "nearest 2"]
    assert [axis.get_ylabel() for axis in rows[::3]] == ["clean", "ST"] * 2
    assert labels_below(figure) == ["class of the query", "another class"]


def test_groups_stand_apart():
    figure = neighbours_figure([[retrieval("clean", [True]), retrieval("ST", [True])], [retrieval("clean", [True])]])
    figure.draw_without_rendering()
    first, second, third = (axis.get_window_extent() for axis in figure.axes if axis.get_ylabel())
    assert second.y0 - third.y1 > 1.5 * (first.y0 - second.y1)


def test_the_file(tmp_path: Path):
    plot_neighbours([[retrieval("clean", [True, False])]], tmp_path / "neighbours.png")
    assert decoded(tmp_path / "neighbours.png").std() > 5


def test_rows_of_different_lengths():
    with pytest.raises(ValueError, match=r"groups: expected the same number of neighbours in every row, got \[1, 2\]"):
        neighbours_figure([[retrieval("clean", [True]), retrieval("ST", [True, False])]])
