from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from figure_checks import decoded, labels_below, texts_inside
from hypothesis import given
from hypothesis import strategies as st

from mdprop_ext.report import plot_embedding_map
from mdprop_ext.report.embedding_map import embedding_map_figure, principal_plane


@given(seed=st.integers(0, 99), count=st.integers(2, 12), dim=st.integers(1, 6))
def test_principal_plane_is_the_best_one(seed, count, dim):
    points = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mean, basis, shares = principal_plane(points)
    flat = (points - mean) @ basis
    covariance = (points - points.mean(0)).T @ (points - points.mean(0))
    largest = torch.linalg.eigvalsh(covariance).flip(0)
    wanted = largest[:2] if dim > 1 else torch.cat([largest, torch.zeros(1, dtype=torch.float64)])
    scale = largest[0].clamp(min=1e-9)
    assert torch.allclose(flat.T @ flat / scale, torch.diag(wanted) / scale, atol=1e-9)
    assert torch.allclose(shares, wanted / largest.sum(), atol=1e-9)


def test_signs_do_not_depend_on_the_solver():
    points = torch.randn(20, 4)
    _, basis, _ = principal_plane(points)
    _, mirrored, _ = principal_plane(-points)
    assert torch.allclose(basis, mirrored)
    assert (basis.gather(0, basis.abs().argmax(0, keepdim=True)) > 0).all()


def test_points_and_arrows():
    clean = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 2.0], [4.0, 2.0]])  # its axes are the principal ones
    attacked = clean + torch.tensor([1.0, 0.5])
    labels = torch.tensor([0, 1, 0, 1])
    figure = embedding_map_figure(clean, labels, attacked={"st": attacked}, classes=("left", "right"))
    (axis,) = figure.axes
    assert axis.get_title() == "ST"
    assert axis.get_xlabel() == "principal component 1 (80 %)"
    drawn = [points.get_offsets().data for points in axis.collections]
    left, left_start, left_moved, right, _, right_moved = [places for places in drawn if len(places)]
    assert left_start == pytest.approx(left)
    assert left == pytest.approx(numpy.array([[-2.0, -1.0], [-2.0, 1.0]]))
    assert right_moved == pytest.approx(right + numpy.array([1.0, 0.5]))
    arrows = [(arrow.xyann, arrow.xy) for arrow in axis.texts]
    assert [start for start, _ in arrows[:2]] == pytest.approx(left)
    assert [end for _, end in arrows[:2]] == pytest.approx(left_moved)
    assert labels_below(figure) == ["left", "right", "attacked"]


def test_many_classes_and_attacks_stay_readable():
    clean = torch.randn(300, 6)
    labels = torch.arange(300) % 30
    names = [f"Alphabet_of_the_Magi/character{index:02d}" for index in range(30)]
    figure = embedding_map_figure(clean, labels, attacked={"st": clean + 1, "mt5": clean - 1}, classes=names)
    first, second = figure.axes
    assert first.get_xlim() == second.get_xlim()
    assert len(first.texts) <= 40
    labels_shown = labels_below(figure)
    assert len(labels_shown) == len(set(labels_shown)) == 7 + 1
    assert texts_inside(figure)


def test_without_attacks_and_by_tsne(tmp_path: Path):
    pytest.importorskip("sklearn")
    clean, labels = torch.randn(12, 5), torch.arange(12) % 3
    for name in ("one.png", "two.png"):
        plot_embedding_map(clean, labels, tmp_path / name, method="tsne")
    assert (decoded(tmp_path / "one.png") == decoded(tmp_path / "two.png")).all()
    (axis,) = embedding_map_figure(clean, labels).axes
    assert not axis.texts


def test_errors():
    clean, labels = torch.randn(4, 2), torch.zeros(4, dtype=torch.int64)
    for message, arguments in {
        r"clean: expected shape \[N, D\] of N >= 2, got \[1, 2\]": (clean[:1], labels[:1], {}),
        r"labels: expected shape \[4\], got \[3\]": (clean, labels[:3], {}),
        r"attacked: expected shape \[4, 2\], got \[3, 2\] for 'st'": (clean, labels, {"st": clean[:3]}),
    }.items():
        with pytest.raises(ValueError, match=message):
            embedding_map_figure(*arguments[:2], attacked=arguments[2])
    with pytest.raises(ValueError, match="method: expected pca or tsne, got 'umap'"):
        embedding_map_figure(clean, labels, method="umap")
