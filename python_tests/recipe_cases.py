"""Small image sets and a recording criterion that the tests of recipes, report and command line share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from image_files import write_classes
from torch import Tensor, nn

from mdprop_ext.data import ImageSet, Splits
from mdprop_ext.losses import MultiSimilarityLoss
from mdprop_ext.recipes import Batch, Plain

SIZE = 16  # the smallest images that conv4 takes


def image_set(classes: int, per_class: int, *, seed: int = 0, size: int = SIZE) -> ImageSet:
    """Noisy copies of one random pattern a class."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randint(256, (classes, 1, size, size), generator=generator)
    labels = torch.arange(classes).repeat_interleave(per_class)
    noise = torch.randint(-90, 91, (len(labels), 1, size, size), generator=generator)
    images = (patterns[labels] + noise).clamp(0, 255).to(torch.uint8)
    return ImageSet(images, labels, tuple(f"{seed}-{index}" for index in range(classes)))


def small_splits(*, size: int = SIZE) -> Splits:
    return Splits(*(image_set(*shape, seed=index, size=size) for index, shape in enumerate([(6, 6), (5, 5), (5, 5)])))


def small_batch(classes: int = 4, per_class: int = 2) -> tuple[Tensor, Tensor]:
    images = image_set(classes, per_class, seed=7)
    return images.floats(), images.labels


class InterruptedPlain(Plain):
    """Plain training that Ctrl-C hits within a step, counted from 1."""

    def __init__(self, *, at: int) -> None:
        super().__init__()
        self._left = at

    def step(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt
        return super().step(model, batch)


class RecordingLoss:
    """The default loss, which keeps what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor]] = []
        self._loss = MultiSimilarityLoss()

    def __call__(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        self.calls.append((embeddings.detach(), labels))
        return self._loss(embeddings, labels)


def fake_metrics(recall: float = 0.9, *, branches: tuple[str, ...] = ("main",)) -> dict[str, Any]:
    """Content of a ``metrics.json``."""
    rows = [
        {"attack": attack, "targets": 1, "eps_255": eps, "steps": 5, "branch": branch, "recall_at_1": recall - eps / 40}
        for attack in ("st", "mt5")
        for eps in (4.0, 8.0)
        for branch in branches
    ]
    robust = {name: {"recall_at_1": recall / 2} for name in ("st", "mt2", "mt5")}
    test = {"recall_at_1": recall, "map_at_r": recall / 3}
    return {"recipe": "plain", "seed": 0, "seconds": 2.0, "test": test, "robust": robust, "robust_grid": rows}


def write_folder(root: Path) -> Path:
    """A ``folder`` data set of twelve classes: four to train on, two to validate, six to test."""
    return write_classes(root, [f"class{index}" for index in range(12)], images=3)
