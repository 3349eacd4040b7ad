"""Small folders and archives of images for the data tests."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy
from PIL import Image


def write_image(path: Path, value: int = 100, *, size: tuple[int, int] = (6, 6), mode: str = "L") -> None:
    """Writes an image of one grey level, ``size`` being width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numpy.full((size[1], size[0]), value, dtype=numpy.uint8)).convert(mode).save(path)


def write_classes(root: Path, names: Iterable[str], *, images: int = 2, mode: str = "L") -> Path:
    """Writes one folder a name with ``images`` images; image i of class c has grey level 10 c + i."""
    for index, name in enumerate(names):
        for image in range(images):
            write_image(root / name / f"{image:02d}.png", 10 * index + image, mode=mode)
    return root


def zip_folder(root: Path, *, wrapper: str = "") -> Path:
    """Archives a folder beside itself, optionally inside a root folder named ``wrapper``."""
    archive = root.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(root.rglob("*")):
            file.write(path, Path(wrapper) / path.relative_to(root))
    return archive
