"""Tests of the Omniglot loader."""

from __future__ import annotations

import os
from pathlib import Path

import numpy
import pytest
import torch

pytest.importorskip("PIL")

from image_files import write_classes, write_image, zip_folder
from PIL import Image

from mdprop_ext.data import load_omniglot

CHARACTERS = ["Greek/character01", "Greek/character02", "Latin/character01", "Latin/character02"]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return zip_folder(write_classes(tmp_path / "omniglot", CHARACTERS), wrapper="images_background")


def test_ink_is_light_on_a_dark_ground(tmp_path: Path) -> None:
    drawing = numpy.full((105, 105), True)
    drawing[45:60, 45:60] = False
    for name in ("0001_01.png", "0001_02.png"):
        path = tmp_path / "Greek" / "character01" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawing).save(path)
    characters = load_omniglot(tmp_path)
    assert characters.images.shape == (2, 1, 28, 28)
    assert characters.images[0, 0, 14, 14] == 255
    assert characters.images[0, 0, 0, 0] == 0


def test_classes_are_alphabet_and_character(archive: Path) -> None:
    assert load_omniglot(archive).classes == tuple(CHARACTERS)


def test_alphabets_are_picked_either_way(archive: Path) -> None:
    by_list, by_path = load_omniglot(archive, ["Latin"]), load_omniglot(f"{archive}::Latin")
    assert by_list.classes == by_path.classes == ("Latin/character01", "Latin/character02")
    assert torch.equal(by_list.images, by_path.images)


def test_single_alphabet_keeps_its_name(tmp_path: Path) -> None:
    assert load_omniglot(write_classes(tmp_path / "set", CHARACTERS[:2])).classes == tuple(CHARACTERS[:2])


def test_size_and_channels(archive: Path) -> None:
    assert load_omniglot(archive, image_size=12, channels=3).images.shape == (8, 3, 12, 12)


def test_unknown_alphabet_lists_what_is_there(archive: Path) -> None:
    with pytest.raises(ValueError, match=r"^path: no folder 'Klingon' in '.*omniglot.zip', which holds Greek, Latin$"):
        load_omniglot(archive, ["Klingon"])


def test_other_layouts_are_refused(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "flat", ["cod", "eel"])
    with pytest.raises(
        ValueError, match=r"^path: expected images in ALPHABET/CHARACTER folders, got 'cod' in '.*flat'$"
    ):
        load_omniglot(root)


def test_two_lists_of_alphabets_are_refused(archive: Path) -> None:
    with pytest.raises(ValueError, match=r"^path: expected top folders in one place"):
        load_omniglot(f"{archive}::Latin", ["Greek"])


def test_alphabets_as_one_string_are_refused(archive: Path) -> None:
    with pytest.raises(TypeError, match="alphabets: expected a sequence of names"):
        load_omniglot(archive, "Latin")


def test_image_size_is_checked(archive: Path) -> None:
    with pytest.raises(ValueError, match="image_size: expected at least 1 pixel, got 0"):
        load_omniglot(archive, image_size=0)


def test_damaged_image_is_named(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "set", CHARACTERS)
    write_image(root / CHARACTERS[0] / "02.png")
    (root / CHARACTERS[0] / "02.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"^path: the image 'Greek/character01/02.png' in '.*set' is damaged"):
        load_omniglot(root)


def test_official_archive() -> None:
    path = os.environ.get("MDPROP_OMNIGLOT")
    if path is None:
        pytest.skip("MDPROP_OMNIGLOT does not name images_background_small1.zip")
    characters = load_omniglot(path)
    assert len(characters) == 2720
    assert len(characters.classes) == 136
    assert {name.split("/")[0] for name in characters.classes} == {
        "Balinese",
        "Early_Aramaic",
        "Greek",
        "Korean",
        "Latin",
    }
    assert torch.bincount(characters.labels).unique().tolist() == [20]
    assert 0.02 < characters.floats().mean() < 0.2
