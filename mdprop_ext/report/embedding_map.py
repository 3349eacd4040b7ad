"""The picture of an embedding space, and of where an attack moves images in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mdprop_ext._optional import require
from mdprop_ext.report._style import DISTINCT, add_legend, colour, marker, new_panels, plain_text, save_png

_MOST_ARROWS = 40
_PALE = 0.25  # opacity


def plot_embedding_map(
    clean: Tensor,
    labels: Tensor,
    path: str | Path,
    *,
    attacked: Mapping[str, Tensor] | None = None,
    classes: Sequence[str] | None = None,
    method: Literal["pca", "tsne"] = "pca",
) -> None:
    """Plots embeddings in two dimensions; see :func:`embedding_map_figure`.

    Args:
        clean: Embeddings ``[N, D]``, N >= 2.
        labels: Classes int64 ``[N]``.
        path: The PNG file to write.
        attacked: By the name of the attack, embeddings ``[N, D]`` of attacked versions.
        classes: Names of the classes; by default their numbers.
        method: ``"pca"``, or ``"tsne"``, which needs scikit-learn.

    Raises:
        ImportError: If matplotlib, or scikit-learn for t-SNE, is not installed.
        ValueError: If shapes disagree or the method is unknown.
    """
    figure = embedding_map_figure(clean, labels, attacked=attacked, classes=classes, method=method)
    save_png(figure, path)


def embedding_map_figure(
    clean: Tensor,
    labels: Tensor,
    *,
    attacked: Mapping[str, Tensor] | None = None,
    classes: Sequence[str] | None = None,
    method: Literal["pca", "tsne"] = "pca",
) -> Any:
    """Draws embeddings in two dimensions, one panel an attack, with arrows from clean to attacked points.

    Filled markers are clean points, hollow ones attacked points. Only the first classes, as many as colours can be told
    apart, are drawn, and arrows for a share of their points; the map itself is made of all points. All panels share it.

    Args:
        clean: Embeddings ``[N, D]``, N >= 2.
        labels: Classes int64 ``[N]``.
        attacked: By the name of the attack, embeddings ``[N, D]`` of attacked versions.
        classes: Names of the classes; by default their numbers.
        method: ``"pca"``, or ``"tsne"``, which needs scikit-learn.

    Returns:
        The matplotlib figure.

    Raises:
        ImportError: If matplotlib, or scikit-learn for t-SNE, is not installed.
        ValueError: If shapes disagree or the method is unknown.
    """
    attacked = attacked or {}
    _check(clean, labels, attacked)
    (points, *moved), names = _flatten([clean, *attacked.values()], method)
    shown = sorted(set(labels.tolist()))[:DISTINCT]
    figure, (axes,) = new_panels(max(1, len(attacked)))
    for axis, name, ends in zip(axes, attacked or ("",), moved or (None,), strict=True):
        for index, label in enumerate(shown):
            own = (labels == label).cpu()
            class_name = plain_text(classes[label] if classes else f"class {label}", 24)
            style = {"color": colour(index), "marker": marker(index), "linewidths": 0}
            # Where arrows are, the other points are only their background.
            axis.scatter(*points[own].T, **style, s=16, alpha=1.0 if ends is None else _PALE, zorder=3)
            axis.scatter([], [], **style, s=20, label=class_name)
            if ends is not None:
                chosen = own.nonzero().squeeze(1)[: max(1, _MOST_ARROWS // len(shown))]
                _draw_moves(axis, points[chosen], ends[chosen], index)
        axis.set(title=plain_text(name.upper()), xlabel=names[0], ylabel=names[1], xticks=[], yticks=[])
        if ends is not None:
            axis.scatter([], [], s=20, facecolors="none", edgecolors="0.3", label="attacked")
    _share_limits(axes)
    add_legend(figure)
    return figure


def principal_plane(embeddings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Finds the plane in which embeddings vary most.

    Args:
        embeddings: ``[N, D]``, floating point, N >= 2.

    Returns:
        Mean ``[D]``; basis ``[D, 2]``, its columns unit vectors (0 where there is no second direction) whose largest
        component is positive, so that the map does not depend on the solver's signs; and the shares of variance
        ``[2]``. All ``float64``, on the CPU.
    """
    values = embeddings.detach().double().cpu()
    mean = values.mean(0)
    _, scales, directions = torch.linalg.svd(values - mean, full_matrices=False)
    basis = torch.zeros(values.shape[1], 2, dtype=torch.float64)
    shares = torch.zeros(2, dtype=torch.float64)
    rank = min(2, len(directions))
    largest = directions[:rank].gather(1, directions[:rank].abs().argmax(1, keepdim=True))
    basis[:, :rank] = (directions[:rank] * largest.sign()).T
    shares[:rank] = scales[:rank].square() / scales.square().sum().clamp(min=1e-300)
    return mean, basis, shares


def _flatten(groups: Sequence[Tensor], method: str) -> tuple[list[Tensor], tuple[str, str]]:
    """Maps all groups of embeddings to two dimensions by one map, and names these."""
    if method == "pca":
        mean, basis, shares = principal_plane(groups[0])
        first, second = (f"principal component {i + 1} ({100 * share:.0f} %)" for i, share in enumerate(shares))
        return [(group.detach().double().cpu() - mean) @ basis for group in groups], (first, second)
    if method != "tsne":
        raise ValueError(f"method: expected pca or tsne, got {method!r}")
    together = torch.cat([group.detach().float().cpu() for group in groups])
    perplexity = min(30.0, (len(together) - 1) / 3)
    solver = require("sklearn.manifold", extra="demo").TSNE(2, perplexity=perplexity, init="pca", random_state=0)
    flat = torch.as_tensor(solver.fit_transform(together.numpy()))
    return list(torch.split(flat, [len(group) for group in groups])), ("t-SNE 1", "t-SNE 2")


def _draw_moves(axis: Any, starts: Tensor, ends: Tensor, index: int) -> None:
    axis.scatter(*starts.T, marker=marker(index), s=20, linewidths=0, color=colour(index), zorder=4)
    axis.scatter(
        *ends.T, marker=marker(index), s=20, linewidths=0.9, facecolors="none", edgecolors=colour(index), zorder=5
    )
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        arrow = {"arrowstyle": "->", "color": colour(index), "alpha": 0.9, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 1}
        axis.annotate("", xy=end, xytext=start, arrowprops=arrow)


def _share_limits(axes: Sequence[Any]) -> None:
    """Lets all panels show the same part of the map."""
    horizontal, vertical = ([getattr(axis, f"get_{side}lim")() for axis in axes] for side in "xy")
    for axis in axes:
        axis.set_xlim(min(low for low, _ in horizontal), max(high for _, high in horizontal))
        axis.set_ylim(min(low for low, _ in vertical), max(high for _, high in vertical))


def _check(clean: Tensor, labels: Tensor, attacked: Mapping[str, Tensor]) -> None:
    if clean.ndim != 2 or len(clean) < 2:
        raise ValueError(f"clean: expected shape [N, D] of N >= 2, got {list(clean.shape)}")
    if labels.shape != clean.shape[:1]:
        raise ValueError(f"labels: expected shape [{len(clean)}], got {list(labels.shape)}")
    for name, embeddings in attacked.items():
        if embeddings.shape != clean.shape:
            raise ValueError(f"attacked: expected shape {list(clean.shape)}, got {list(embeddings.shape)} for {name!r}")
