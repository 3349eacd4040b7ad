"""Training, validation and test sets whose classes are disjoint."""

from __future__ import annotations

import logging
from collections.abc import Callable
from os import PathLike, fspath
from typing import NamedTuple

import numpy

from mdprop_ext.data._class_folders import ClassFolders, find_class_folders
from mdprop_ext.data.digits import load_digits
from mdprop_ext.data.folder import load_class_folders
from mdprop_ext.data.image_set import ImageSet
from mdprop_ext.data.omniglot import find_characters, load_characters

_LOGGER = logging.getLogger(__name__)
DATA_NAMES = ("digits", "omniglot", "folder")
# Retrieval within a split needs another class to confuse with.
_MIN_CLASSES = 2

_Source = str | PathLike[str]


class _Layout(NamedTuple):
    """How a data set's class folders are found and decoded, and whether equal names always mean the same class."""

    find: Callable[..., ClassFolders]
    load: Callable[..., ImageSet]
    names_are_global: bool


_OMNIGLOT = _Layout(find_characters, load_characters, names_are_global=True)
_FOLDER = _Layout(find_class_folders, load_class_folders, names_are_global=False)


class Splits(NamedTuple):
    """Three sets that share no class: ``train``, ``val`` for the choice of a model, ``test`` for its report."""

    train: ImageSet
    val: ImageSet
    test: ImageSet

    def __repr__(self) -> str:
        """Returns one line a set."""
        lines = [f"  {name}={images!r},\n" for name, images in zip(self._fields, self, strict=True)]
        return f"Splits(\n{''.join(lines)})"


def load_splits(
    name: str,
    *,
    train: _Source | None = None,
    test: _Source | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
) -> Splits:
    """Loads a data set and splits it by class, so that test classes are never seen in training.

    * ``"digits"``: training classes 0 to 4, test classes 5 to 9; takes no path.
    * ``"omniglot"``: see :func:`load_omniglot`.
    * ``"folder"``: see :func:`load_folder`.

    With ``train`` alone the first half of its classes in name order, the larger one if the number is odd, is for
    training and the rest for testing, as is usual for CUB-200 and CARS-196. Validation classes are drawn from the
    training classes: their rounded share, at least 2, leaving at least 2.

    Args:
        name: ``"digits"``, ``"omniglot"`` or ``"folder"``.
        train: ``PATH[::A,B]`` of the training classes.
        test: ``PATH[::A,B]`` of the test classes.
        image_size: Height and width in pixels; by default the loader's.
        channels: 1 or 3; by default the loader's. If that goes by the files, the training files decide for both.
        val_fraction: Share of the training classes held out for validation, above 0 and below 1.
        seed: Of the draw of validation classes.

    Returns:
        The three sets, labels counting from 0 in each.

    Raises:
        ImportError: If scikit-learn or Pillow is needed and not installed.
        TypeError: If a path has the wrong type.
        ValueError: If the name is unknown, a path is missing or does not hold what it should, train and test share
            a class, there are too few classes, or a number is out of range.

    Example:
        >>> train, val, test = load_splits("digits", seed=1)
        >>> test.classes
        ('5', '6', '7', '8', '9')
    """
    if name not in DATA_NAMES:
        raise ValueError(f"name: expected one of {', '.join(DATA_NAMES)}, got {name!r}")
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction: expected a number above 0 and below 1, got {val_fraction}")
    given = {"image_size": image_size, "channels": channels}
    options = {key: value for key, value in given.items() if value is not None}
    if name == "digits":
        training, testing = _split_digits(train, test, options)
    else:
        training, testing = _split_folders(_OMNIGLOT if name == "omniglot" else _FOLDER, train, test, options)
    training, validation = _hold_out(training, val_fraction, seed)
    return Splits(training, validation, testing)


def _split_digits(train: _Source | None, test: _Source | None, options: dict[str, int]) -> tuple[ImageSet, ImageSet]:
    for argument, source in (("train", train), ("test", test)):
        if source is not None:
            raise ValueError(f"{argument}: the digits come without a path, got {fspath(source)!r}")
    digits = load_digits(**options)
    return digits.select_classes(range(5)), digits.select_classes(range(5, 10))


def _split_folders(
    layout: _Layout, train: _Source | None, test: _Source | None, options: dict[str, int]
) -> tuple[ImageSet, ImageSet]:
    if train is None:
        raise ValueError("train: expected the PATH of the training images, got none")
    train_folders = layout.find(train, argument="train")
    if test is None:
        everything = layout.load(train_folders, **options)
        half = (len(everything.classes) + 1) // 2
        _require_classes(len(everything.classes) - half, _MIN_CLASSES, "train", "a second half to test on")
        return everything.select_classes(range(half)), everything.select_classes(range(half, len(everything.classes)))
    test_folders = layout.find(test, argument="test")
    _require_disjoint(train_folders, test_folders, names_are_global=layout.names_are_global)
    _require_classes(len(test_folders.members), _MIN_CLASSES, "test", "retrieval")
    training = layout.load(train_folders, **options)
    _, channels, image_size, _ = training.images.shape
    return training, layout.load(test_folders, image_size=image_size, channels=channels)


def _require_disjoint(train: ClassFolders, test: ClassFolders, *, names_are_global: bool) -> None:
    named_alike = sorted(set(train.members) & set(test.members))
    train_locations = train.locations()
    same = [name for location, name in test.locations().items() if location in train_locations]
    if names_are_global:
        same += named_alike
    if same:
        raise ValueError(f"test: the class '{same[0]}' in '{test.tree.path}' is a training class too")
    if named_alike:
        # Two collections may well number their classes alike; only a person can tell.
        _LOGGER.warning(
            "test: %d classes have names of training classes, such as '%s'", len(named_alike), named_alike[0]
        )


def _hold_out(training: ImageSet, val_fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
    total = len(training.classes)
    _require_classes(total, 2 * _MIN_CLASSES, "train", "training and validation")
    held_out = min(max(round(val_fraction * total), _MIN_CLASSES), total - _MIN_CLASSES)
    order = numpy.random.default_rng(seed).permutation(total)
    validation, remaining = (sorted(part.tolist()) for part in (order[:held_out], order[held_out:]))
    return training.select_classes(remaining), training.select_classes(validation)


def _require_classes(count: int, least: int, argument: str, purpose: str) -> None:
    if count < least:
        raise ValueError(f"{argument}: expected at least {least} classes for {purpose}, got {count}")
