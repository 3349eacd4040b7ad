"""The picture of attacked images beside the clean ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdprop_ext.report._style import new_tiles, plain_text, save_png, show_image

_MIDDLE_GREY = 128


def plot_adversarial_grid(clean: Tensor, attacked: Mapping[str, Tensor], path: str | Path) -> None:
    """Plots clean images, magnified perturbations and attacked images; see :func:`adversarial_grid_figure`.

    Args:
        clean: ``uint8`` images ``[N, C, H, W]`` of 1 or 3 channels, N >= 1.
        attacked: By the name of the attack, attacked versions of the images, ``uint8`` of the same shape.
        path: The PNG file to write.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there are no images or attacks, or shapes differ.
    """
    save_png(adversarial_grid_figure(clean, attacked), path)


def adversarial_grid_figure(clean: Tensor, attacked: Mapping[str, Tensor]) -> Any:
    """Draws one row an image: clean, then for each attack the perturbation and the attacked image.

    Perturbations of all attacks are multiplied by the same whole number, as large as the largest of them allows, and
    shown around a middle grey that means no change; the titles state the factor.

    Args:
        clean: ``uint8`` images ``[N, C, H, W]`` of 1 or 3 channels, N >= 1.
        attacked: By the name of the attack, attacked versions of the images, ``uint8`` of the same shape.

    Returns:
        The matplotlib figure.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there are no images or attacks, or shapes differ.
    """
    if not len(clean) or not attacked:
        raise ValueError(f"attacked: expected an image and an attack at least, got {len(clean)} and {len(attacked)}")
    for name, images in attacked.items():
        if images.shape != clean.shape:
            raise ValueError(f"attacked: expected shape {list(clean.shape)}, got {list(images.shape)} for {name!r}")
    factor = magnification(clean, attacked)
    figure, rows = new_tiles([len(clean)], 1 + 2 * len(attacked))
    for index, row in enumerate(rows):
        show_image(row[0], clean[index])
        for column, images in enumerate(attacked.values()):
            change = images[index].short() - clean[index].short()
            show_image(row[1 + 2 * column], (_MIDDLE_GREY + factor * change).clamp(0, 255).to(torch.uint8))
            show_image(row[2 + 2 * column], images[index])
    rows[0][0].set_title("clean", fontsize="small")
    for column, name in enumerate(attacked):
        rows[0][1 + 2 * column].set_title(f"change x {factor}", fontsize="small")
        rows[0][2 + 2 * column].set_title(plain_text(name.upper(), 14), fontsize="small")
    return figure


def magnification(clean: Tensor, attacked: Mapping[str, Tensor]) -> int:
    """The largest whole factor, at least 1, that leaves every perturbation within half the range of pixels.

    Args:
        clean: ``uint8`` images ``[N, C, H, W]``.
        attacked: Attacked versions by name, of the same shape.

    Returns:
        The factor; 1 also where nothing was changed.
    """
    largest = max(int((images.short() - clean.short()).abs().max()) for images in attacked.values())
    return max(1, (_MIDDLE_GREY - 1) // max(1, largest)) if largest else 1
