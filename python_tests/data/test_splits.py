"""Tests of splits by class."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from mdprop_ext.data import load_digits, load_splits


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """Ten classes of two greyscale images, in two top folders."""
    pytest.importorskip("PIL")
    from image_files import write_classes

    names = [f"first/{letter}" for letter in "abcde"] + [f"second/{letter}" for letter in "abcde"]
    return write_classes(tmp_path / "letters", names)


def test_digits_train_on_the_lower_half() -> None:
    pytest.importorskip("sklearn")
    train, val, test = load_splits("digits")
    assert sorted(train.classes + val.classes) == ["0", "1", "2", "3", "4"]
    assert len(val.classes) == 2
    assert test.classes == ("5", "6", "7", "8", "9")
    assert len(train) + len(val) + len(test) == 1797
    assert torch.equal(test.images, load_digits().select_classes(list("56789")).images)


def test_digits_take_size_and_channels() -> None:
    pytest.importorskip("sklearn")
    assert load_splits("digits", image_size=20, channels=3).val.images.shape[1:] == (3, 20, 20)


@pytest.mark.parametrize("name", ["folder", "omniglot"])
def test_one_path_is_split_into_halves_in_name_order(letters: Path, name: str) -> None:
    train, val, test = load_splits(name, train=letters)
    assert sorted(train.classes + val.classes) == [f"first/{letter}" for letter in "abcde"]
    assert test.classes == tuple(f"second/{letter}" for letter in "abcde")


def test_odd_number_of_classes_gives_training_the_larger_half(letters: Path) -> None:
    from image_files import write_classes

    train, val, test = load_splits("folder", train=write_classes(letters, ["third/a"]))
    assert (len(train.classes), len(val.classes), len(test.classes)) == (4, 2, 5)


@pytest.mark.parametrize("name", ["folder", "omniglot"])
def test_two_paths_pick_train_and_test(letters: Path, name: str) -> None:
    train, val, test = load_splits(name, train=f"{letters}::first", test=f"{letters}::second")
    assert {label.split("/")[0] for label in train.classes + val.classes} == {"first"}
    assert {label.split("/")[0] for label in test.classes} == {"second"}
    assert train.images.shape[1:] == test.images.shape[1:] == (1, 28, 28)


def test_training_files_decide_the_channels_of_both(letters: Path, tmp_path: Path) -> None:
    from image_files import write_classes

    colour = write_classes(tmp_path / "colour", ["x/a", "y/b", "y/c"], mode="RGB")
    assert load_splits("folder", train=letters, test=colour).test.images.shape[1:] == (1, 28, 28)


def test_validation_classes_are_a_seeded_share(letters: Path) -> None:
    def held_out(seed: int, share: float = 0.2) -> tuple[str, ...]:
        source = f"{letters}::first,second"
        return load_splits("folder", train=source, val_fraction=share, seed=seed, image_size=2).val.classes

    assert held_out(1) == held_out(1)
    assert len({held_out(seed) for seed in range(6)}) > 1
    assert all(list(held_out(seed)) == sorted(held_out(seed)) for seed in range(3))
    assert [len(held_out(0, share)) for share in (0.01, 0.5, 0.6, 0.99)] == [2, 2, 3, 3]


def test_images_stay_with_their_class(letters: Path) -> None:
    for part in load_splits("folder", train=letters, image_size=6):
        for label, name in enumerate(part.classes):
            index = "abcde".index(name[-1]) + 5 * name.startswith("second")
            assert part.images[part.labels == label, 0, 0, 0].tolist() == [10 * index, 10 * index + 1]


@pytest.mark.parametrize("test", ["{0}", "{0}::first", "{0}/first", "{0}/../letters/first"])
def test_shared_class_is_an_error(letters: Path, test: str) -> None:
    with pytest.raises(ValueError, match=r"^test: the class '(first/)?a' in '.*' is a training class too$"):
        load_splits("folder", train=f"{letters}::first", test=test.format(letters))


def test_character_in_two_archives_is_an_error(letters: Path) -> None:
    from image_files import zip_folder

    with pytest.raises(ValueError, match=r"^test: the class 'second/a' in '.*letters.zip' is a training class too$"):
        load_splits("omniglot", train=letters, test=f"{zip_folder(letters)}::second")


def test_equal_names_in_different_folders_are_a_warning(letters: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_splits("folder", train=letters / "first", test=letters / "second")
    assert "test: 5 classes have names of training classes, such as 'a'" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "cifar"}, "^name: expected one of digits, omniglot, folder, got 'cifar'$"),
        ({"name": "folder"}, "^train: expected the PATH of the training images, got none$"),
        ({"name": "omniglot", "test": "x.zip"}, "^train: expected the PATH of the training images, got none$"),
        ({"name": "folder", "train": "no.zip"}, "^train: no such file or folder: 'no.zip'$"),
        ({"name": "digits", "train": "x.zip"}, "^train: the digits come without a path, got 'x.zip'$"),
        ({"name": "digits", "test": "x.zip"}, "^test: the digits come without a path, got 'x.zip'$"),
        ({"name": "digits", "val_fraction": 0.0}, "^val_fraction: expected a number above 0 and below 1, got 0.0$"),
        ({"name": "digits", "val_fraction": 1.0}, "^val_fraction: .* got 1.0$"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_splits(**arguments)


def test_faults_of_the_test_path_name_it(letters: Path) -> None:
    with pytest.raises(ValueError, match=r"^test: no folder 'third' in '.*letters', which holds first, second$"):
        load_splits("folder", train=f"{letters}::first", test=f"{letters}::third")


@pytest.mark.parametrize("name", ["folder", "omniglot"])
def test_image_size_is_checked(letters: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"^image_size: expected at least 1 pixel, got 0$"):
        load_splits(name, train=letters, image_size=0)


def test_too_few_classes_are_named(tmp_path: Path) -> None:
    from image_files import write_classes

    three = write_classes(tmp_path / "three", "abc")
    with pytest.raises(ValueError, match=r"^train: expected at least 2 classes for a second half to test on, got 1$"):
        load_splits("folder", train=three)
    with pytest.raises(ValueError, match=r"^train: expected at least 4 classes for training and validation, got 3$"):
        load_splits("folder", train=three, test=write_classes(tmp_path / "more", "xy"))
    with pytest.raises(ValueError, match=r"^test: expected at least 2 classes for retrieval, got 1$"):
        load_splits("folder", train=three, test=write_classes(tmp_path / "one", "z"))


def test_repr_has_a_line_a_set():
    pytest.importorskip("sklearn")
    lines = repr(load_splits("digits")).splitlines()
    assert [line.split("=")[0].strip() for line in lines] == ["Splits(", "train", "val", "test", ")"]
    assert lines[3] == "  test=ImageSet(896 images of 1 x 16 x 16 in 5 classes: '5', '6', '7', ...),"
