"""An in-memory set of images with class labels."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mdprop_ext._arguments import check_tensor

_NAMES_SHOWN = 3


@dataclass(frozen=True, eq=False)
class ImageSet(Dataset[tuple[Tensor, int]]):
    """Images of one size, each with the class that it belongs to.

    Pixels stay ``uint8``, a quarter of the memory of floats; :meth:`floats` converts the images of one batch. As a
    ``Dataset``, for ``DataLoader``, it gives pairs of an image as floats in [0, 1] and its label.

    Args:
        images: ``uint8`` tensor ``[N, C, H, W]``.
        labels: ``int64`` tensor ``[N]``, positions in ``classes``.
        classes: Names of the classes, each once.

    Raises:
        TypeError: If ``images`` is no ``uint8`` tensor or ``labels`` no ``int64`` tensor.
        ValueError: If shapes disagree, a label has no class, or a class name comes twice.

    Example:
        >>> from mdprop_ext.data import load_digits
        >>> digits = load_digits()
        >>> zeros_and_ones = digits.select_classes(["0", "1"])
        >>> zeros_and_ones.floats([0, 1]).shape
        torch.Size([2, 1, 16, 16])
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        check_tensor("images", self.images)
        check_tensor("labels", self.labels)
        if self.images.dtype != torch.uint8:
            raise TypeError(f"images: expected dtype torch.uint8, got {self.images.dtype}")
        if self.labels.dtype != torch.int64:
            raise TypeError(f"labels: expected dtype torch.int64, got {self.labels.dtype}")
        if self.images.ndim != 4:
            raise ValueError(f"images: expected shape [N, C, H, W], got {list(self.images.shape)}")
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels: expected shape [{len(self.images)}], got {list(self.labels.shape)}")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: expected each name once, got a name twice")
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise ValueError(f"labels: expected values from 0 to {len(self.classes) - 1}, got others")

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Returns one image with its label.

        Args:
            index: Position of the image; negative ones count from the end.

        Returns:
            Image ``[C, H, W]``, ``float32`` in [0, 1], and the position of its class in ``classes``.

        Raises:
            TypeError: If ``index`` is not an integer.
            IndexError: If there is no such image.
        """
        position = operator.index(index)
        return self.images[position].float() / 255, int(self.labels[position])

    def __repr__(self) -> str:
        """Returns sizes and the first class names, not the pixels."""
        _, channels, height, width = self.images.shape
        names = ", ".join(repr(name) for name in self.classes[:_NAMES_SHOWN])
        more = ", ..." if len(self.classes) > _NAMES_SHOWN else ""
        shape = f"{channels} x {height} x {width}"
        return f"ImageSet({len(self)} images of {shape} in {len(self.classes)} classes: {names}{more})"

    def select_classes(self, classes: Sequence[str | int]) -> ImageSet:
        """Keeps the images of some classes, in their present order.

        Args:
            classes: Names or positions of the classes to keep. Their order is the new order of classes, so labels
                count from 0 to ``len(classes) - 1`` again.

        Returns:
            A new set.

        Raises:
            ValueError: If a class is unknown or comes twice.
        """
        chosen = [self._class_index(name) for name in classes]
        if len(set(chosen)) != len(chosen):
            raise ValueError("classes: expected each class once, got a class twice")
        new_label = torch.full((len(self.classes),), -1, dtype=torch.int64)
        new_label[chosen] = torch.arange(len(chosen))
        labels = new_label.to(self.labels.device)[self.labels]
        kept = labels >= 0
        return ImageSet(self.images[kept], labels[kept], tuple(self.classes[index] for index in chosen))

    def floats(self, indices: Tensor | Sequence[int] | None = None) -> Tensor:
        """Converts images to ``float32`` in [0, 1].

        Args:
            indices: Positions ``[M]`` of the images wanted, any order; all images by default.

        Returns:
            Tensor ``[M, C, H, W]``.
        """
        if indices is None:
            return self.images.float() / 255
        if not isinstance(indices, Tensor):
            indices = torch.tensor(indices, dtype=torch.int64)
        return self.images[indices].float() / 255

    def _class_index(self, name: str | int) -> int:
        if isinstance(name, str):
            if name not in self.classes:
                raise ValueError(f"classes: expected names of the {len(self.classes)} classes, got {name!r}")
            return self.classes.index(name)
        if not 0 <= name < len(self.classes):
            raise ValueError(f"classes: expected positions from 0 to {len(self.classes) - 1}, got {name}")
        return name
