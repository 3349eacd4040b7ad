"""Omniglot: handwritten characters of many alphabets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike

from mdprop_ext.data._arguments import check_channels, check_image_size
from mdprop_ext.data._class_folders import ClassFolders, find_class_folders
from mdprop_ext.data.image_set import ImageSet


def load_omniglot(
    path: str | PathLike[str], alphabets: Sequence[str] | None = None, *, image_size: int = 28, channels: int = 1
) -> ImageSet:
    """Loads characters from an official Omniglot archive, or from a folder that it was unpacked to.

    The files hold black ink on white. The result holds light ink on a dark ground, as the digits do, so that the
    ground is 0, the value that convolutions pad with.

    Args:
        path: ``PATH`` or ``PATH::A,B``: an archive such as ``images_background.zip`` and the alphabets to keep.
        alphabets: Alphabets to keep, instead of naming them in ``path``; all by default.
        image_size: Height and width in pixels, at least 1; the originals have 105.
        channels: 1, or 3 for three equal channels.

    Returns:
        The set of classes ``alphabet/characterNN``, in name order.

    Raises:
        ImportError: If Pillow is not installed.
        TypeError: If an argument has the wrong type.
        ValueError: If the path is missing, damaged or laid out otherwise, an alphabet is not there, or a number is
            out of range.

    Example:
        >>> greek = load_omniglot("images_background_small1.zip", ["Greek"])  # doctest: +SKIP

    Reference:
        B. Lake, R. Salakhutdinov, J. Tenenbaum: Human-level concept learning through probabilistic program
        induction. Science 350, 2015.
    """
    if isinstance(alphabets, str):
        raise TypeError("alphabets: expected a sequence of names, got one string")
    folders = find_characters(path, argument="path", alphabets=alphabets or ())
    return load_characters(folders, image_size=image_size, channels=channels)


def find_characters(source: str | PathLike[str], *, argument: str, alphabets: Sequence[str] = ()) -> ClassFolders:
    """Finds class folders and requires them to be laid out as ``alphabet/characterNN``."""
    folders = find_class_folders(source, argument=argument, levels=2, picks=alphabets)
    for name in folders.members:
        if name.count("/") != 1:
            raise ValueError(
                f"{argument}: expected images in ALPHABET/CHARACTER folders, got '{name}' in '{folders.tree.path}'"
            )
    return folders


def load_characters(folders: ClassFolders, *, image_size: int = 28, channels: int = 1) -> ImageSet:
    """Decodes found characters as light ink on a dark ground."""
    check_image_size(image_size)
    check_channels(channels)
    as_stored = folders.load(image_size=image_size, channels=channels)
    return replace(as_stored, images=255 - as_stored.images)
