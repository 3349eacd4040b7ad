"""The image files of a folder or a zip archive, read alike."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


class FileTree:
    """Image files below a folder or inside a zip archive.

    Hidden files and folders and the ``__MACOSX`` folders of archives are no part of it. Archives are never unpacked.

    Args:
        path: The folder or archive.
        argument: Name of the user's argument, for messages.

    Attributes:
        path: As given.
        argument: As given.
        files: Image files relative to ``path``, sorted by their path's parts.

    Raises:
        ValueError: If ``path`` does not exist, is neither a folder nor a zip archive, or holds no image.
    """

    def __init__(self, path: Path, argument: str) -> None:
        self.path = path
        self.argument = argument
        if not path.exists():
            raise ValueError(f"{argument}: no such file or folder: '{path}'")
        self._archive = None if path.is_dir() else self._open_archive()
        # Archives may spell a member's name in other ways than the normal form that the path has.
        self._spelling = {PurePosixPath(name): name for name in self._names() if _is_image(PurePosixPath(name))}
        self.files = tuple(sorted(self._spelling, key=lambda file: file.parts))
        if not self.files:
            raise ValueError(f"{argument}: found no images in '{path}'")

    def read(self, file: PurePosixPath) -> bytes:
        """Returns the bytes of one of :attr:`files`.

        Raises:
            ValueError: If the file cannot be read or its archive is damaged there.
        """
        name = self._spelling[file]
        try:
            return (self.path / name).read_bytes() if self._archive is None else self._archive.read(name)
        # A damaged or encrypted member shows itself by any of these.
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
            raise ValueError(f"{self.argument}: cannot read the file '{file}' in '{self.path}'") from error

    def _open_archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (OSError, zipfile.BadZipFile) as error:
            if self.path.suffix.lower() == ".zip":
                raise ValueError(f"{self.argument}: the zip archive '{self.path}' is damaged or incomplete") from error
            raise ValueError(f"{self.argument}: expected a folder or a zip archive, got '{self.path}'") from error

    def _names(self) -> Iterator[str]:
        if self._archive is not None:
            yield from self._archive.namelist()
            return
        for folder, _, names in os.walk(self.path, followlinks=True):
            for name in names:
                yield (Path(folder) / name).relative_to(self.path).as_posix()


def _is_image(file: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in file.parts)
    return not hidden and file.suffix.lower() in _IMAGE_SUFFIXES
