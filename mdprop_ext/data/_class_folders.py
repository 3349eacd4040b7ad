"""Class folders found below a folder or inside a zip archive."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path, PurePosixPath
from typing import TypeVar

import torch

from mdprop_ext.data._decode import decode_image, is_greyscale
from mdprop_ext.data._file_tree import FileTree
from mdprop_ext.data.image_set import ImageSet

_LOGGER = logging.getLogger(__name__)
_MAX_NAMES_LISTED = 20
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class ClassFolders:
    """The class folders of one source, found but not yet decoded.

    Args:
        tree: Where the images lie.
        members: Image files of each class by the class's name, in name order; at least two a class.
    """

    tree: FileTree
    members: dict[str, list[PurePosixPath]]

    def locations(self) -> dict[Path, str]:
        """Returns the full path of each class folder with the class's name."""
        root = self.tree.path.resolve()
        return {root / files[0].parent: name for name, files in self.members.items()}

    def detect_channels(self) -> int:
        """Returns 1 if every image stores grey levels only, else 3."""
        grey = all(self._decode(file, is_greyscale) for files in self.members.values() for file in files)
        return 1 if grey else 3

    def load(self, *, image_size: int, channels: int) -> ImageSet:
        """Decodes all images to squares of one size."""
        files = [(file, label) for label, group in enumerate(self.members.values()) for file in group]
        images = torch.empty(len(files), channels, image_size, image_size, dtype=torch.uint8)
        pixels = images.numpy()
        for index, (file, _) in enumerate(files):
            pixels[index] = self._decode(
                file, lambda data: decode_image(data, image_size=image_size, channels=channels)
            )
        return ImageSet(images, torch.tensor([label for _, label in files]), tuple(self.members))

    def _decode(self, file: PurePosixPath, decoder: Callable[[bytes], _Result]) -> _Result:
        data = self.tree.read(file)
        try:
            return decoder(data)
        except ImportError:
            raise
        # Decoders of the many formats share no base class for damaged data.
        except Exception as error:
            raise ValueError(
                f"{self.tree.argument}: the image '{file}' in '{self.tree.path}' is damaged or of an unknown format"
            ) from error


def find_class_folders(
    source: str | PathLike[str], *, argument: str, levels: int = 1, picks: Sequence[str] = ()
) -> ClassFolders:
    """Finds the leaf folders of images, which are the classes.

    Args:
        source: ``PATH`` or ``PATH::A,B``: a folder or zip archive and, after the colons, the top folders to keep.
        argument: Name of the user's argument, for messages.
        levels: Folder levels of a class name at least; one more, the same for all images, is taken as a wrapper.
        picks: Top folders to keep, instead of naming them in ``source``.

    Returns:
        The classes, named by their path below the wrapper if there is one.

    Raises:
        ValueError: If the source is missing, damaged or without class folders, a picked folder is not there, or a
            class has a single image.
    """
    path, named = parse_source(source, argument=argument)
    if named and picks:
        raise ValueError(f"{argument}: expected top folders in one place, got them in {fspath(source)!r} and beside it")
    picks = named or tuple(picks)
    tree = FileTree(path, argument)
    folders = _leaf_folders(tree)
    depth = _wrapper_depth(folders, picks, levels)
    if picks:
        folders = _pick(folders, picks, depth, tree)
    members = {"/".join(folder.parts[depth:]): files for folder, files in folders.items()}
    for name, files in members.items():
        if len(files) < 2:
            raise ValueError(f"{argument}: the class '{name}' in '{path}' has one image only, at least two are needed")
    return ClassFolders(tree, members)


def parse_source(source: str | PathLike[str], *, argument: str) -> tuple[Path, tuple[str, ...]]:
    """Splits ``PATH[::A,B]`` into the path and the names of top folders."""
    if not isinstance(source, str | PathLike):
        raise TypeError(f"{argument}: expected a path, got {type(source).__name__}")
    text, separator, listing = fspath(source).partition("::")
    picks = tuple(name.strip() for name in listing.split(",")) if separator else ()
    if not text or not all(picks):
        raise ValueError(f"{argument}: expected PATH or PATH::FOLDER,FOLDER, got {fspath(source)!r}")
    return Path(text).expanduser(), picks


def _leaf_folders(tree: FileTree) -> dict[PurePosixPath, list[PurePosixPath]]:
    folders: dict[PurePosixPath, list[PurePosixPath]] = {}
    for file in tree.files:
        folders.setdefault(file.parent, []).append(file)
    inner = {parent for folder in folders for parent in folder.parents}
    leaves = {folder: folders[folder] for folder in sorted(folders, key=lambda f: f.parts) if folder not in inner}
    if list(leaves) == [PurePosixPath()]:
        raise ValueError(f"{tree.argument}: expected images in one folder a class, got them directly in '{tree.path}'")
    left_out = sum(len(files) for folder, files in folders.items() if folder in inner)
    if left_out:
        _LOGGER.warning("%s: %d images beside class folders in '%s' are left out", tree.argument, left_out, tree.path)
    return leaves


def _wrapper_depth(folders: Collection[PurePosixPath], picks: Sequence[str], levels: int) -> int:
    """Returns 1 if one root folder wraps all classes, else 0."""
    tops = {folder.parts[0] for folder in folders}
    deep = all(len(folder.parts) > levels for folder in folders)
    # A lone top folder that the user names is one of the folders to keep.
    return int(len(tops) == 1 and deep and set(picks) != tops)


def _pick(
    folders: dict[PurePosixPath, list[PurePosixPath]], picks: Sequence[str], depth: int, tree: FileTree
) -> dict[PurePosixPath, list[PurePosixPath]]:
    tops = sorted({folder.parts[depth] for folder in folders})
    unknown = [name for name in picks if name not in tops]
    if unknown:
        listing = ", ".join(tops[:_MAX_NAMES_LISTED]) + (", ..." if len(tops) > _MAX_NAMES_LISTED else "")
        raise ValueError(f"{tree.argument}: no folder '{unknown[0]}' in '{tree.path}', which holds {listing}")
    return {folder: files for folder, files in folders.items() if folder.parts[depth] in picks}
