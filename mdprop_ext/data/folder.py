"""Image folders in which each leaf folder is a class."""

from __future__ import annotations

from os import PathLike

from mdprop_ext.data._arguments import check_channels, check_image_size
from mdprop_ext.data._class_folders import ClassFolders, find_class_folders
from mdprop_ext.data.image_set import ImageSet


def load_folder(path: str | PathLike[str], *, image_size: int | None = None, channels: int | None = None) -> ImageSet:
    """Loads a folder or zip archive whose leaf folders of images are the classes.

    A class is named by its path, as in ``birds/wren``. One root folder around everything, as archives often have, is
    no part of the names. Classes and images come in name order. Images that are not square are cropped to their
    centre; shrinking is antialiased.

    Args:
        path: ``PATH`` or ``PATH::A,B``, where ``A`` and ``B`` are the top folders to keep.
        image_size: Height and width in pixels, at least 1; by default 28 for greyscale and 64 for RGB.
        channels: 1 for grey levels, 3 for RGB; by default 1 if every file is greyscale, else 3.

    Returns:
        The set of all classes, each with two images or more.

    Raises:
        ImportError: If Pillow is not installed.
        TypeError: If an argument has the wrong type.
        ValueError: If the path is missing, empty or damaged, a folder named is not there, a class has one image
            only, or a number is out of range.

    Example:
        >>> birds = load_folder("birds.zip::owls,terns", image_size=64)  # doctest: +SKIP
    """
    return load_class_folders(find_class_folders(path, argument="path"), image_size=image_size, channels=channels)


def load_class_folders(
    folders: ClassFolders, *, image_size: int | None = None, channels: int | None = None
) -> ImageSet:
    """Decodes found folders with the defaults of :func:`load_folder`."""
    if channels is None:
        channels = folders.detect_channels()
    check_channels(channels)
    if image_size is None:
        image_size = 28 if channels == 1 else 64
    check_image_size(image_size)
    return folders.load(image_size=image_size, channels=channels)
