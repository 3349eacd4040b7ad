"""Tests of folders and archives of class folders."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import numpy
import pytest
import torch

pytest.importorskip("PIL")

from image_files import write_classes, write_image, zip_folder
from PIL import Image

from mdprop_ext.data import load_folder

NESTED = ["birds/owl", "birds/wren", "fish/cod", "fish/eel"]


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "animals", NESTED)


def test_leaf_folders_are_the_classes_in_name_order(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "animals", reversed(NESTED))
    animals = load_folder(root, image_size=6)
    assert animals.classes == tuple(NESTED)
    assert animals.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert animals.images[:, 0, 0, 0].tolist() == [30, 31, 20, 21, 10, 11, 0, 1]
    assert animals.images.shape == (8, 1, 6, 6)


@pytest.mark.parametrize("wrapper", ["", "animals", "anything"])
def test_archive_equals_folder_with_or_without_a_wrapping_root(animals: Path, wrapper: str) -> None:
    from_folder, from_archive = load_folder(animals), load_folder(zip_folder(animals, wrapper=wrapper))
    assert from_archive.classes == from_folder.classes
    assert torch.equal(from_archive.images, from_folder.images)
    assert torch.equal(from_archive.labels, from_folder.labels)


@pytest.mark.parametrize("wrapper", ["", "animals"])
def test_picks_top_folders_below_the_wrapper(animals: Path, wrapper: str) -> None:
    archive = zip_folder(animals, wrapper=wrapper)
    assert load_folder(f"{archive}::fish").classes == ("fish/cod", "fish/eel")
    assert load_folder(f"{archive}::fish, birds").classes == tuple(NESTED)


def test_single_top_folder_can_be_picked_by_name(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "animals", ["fish/cod", "fish/eel"])
    assert load_folder(root).classes == ("cod", "eel")
    assert load_folder(f"{root}::fish").classes == ("fish/cod", "fish/eel")


def test_flat_classes_are_never_taken_for_a_wrapper(tmp_path: Path) -> None:
    assert load_folder(write_classes(tmp_path / "one", ["cod"])).classes == ("cod",)


def test_hidden_and_foreign_files_are_ignored(animals: Path) -> None:
    for name in ("__MACOSX/birds/owl/._00.png", ".cache/x/0.png", "birds/owl/.hidden.png", "birds/owl/notes.txt"):
        (animals / name).parent.mkdir(parents=True, exist_ok=True)
        (animals / name).write_bytes(b"not an image")
    for source in (animals, zip_folder(animals, wrapper="animals")):
        assert load_folder(source).classes == tuple(NESTED)


def test_images_beside_class_folders_are_left_out_with_a_warning(
    animals: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_image(animals / "birds" / "cover.png")
    write_image(animals / "cover.png")
    with caplog.at_level(logging.WARNING):
        assert load_folder(animals).classes == tuple(NESTED)
    assert "path: 2 images beside class folders" in caplog.text


def test_linked_class_folders_are_followed(animals: Path, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    os.symlink(animals / "birds" / "owl", chosen / "owl")
    assert load_folder(chosen).classes == ("owl",)


@pytest.mark.parametrize(
    ("mode", "channels", "image_size"), [("L", 1, 28), ("1", 1, 28), ("LA", 1, 28), ("RGB", 3, 64)]
)
def test_defaults_follow_the_files(tmp_path: Path, mode: str, channels: int, image_size: int) -> None:
    root = write_classes(tmp_path / "set", ["a", "b"], mode=mode)
    assert load_folder(root).images.shape == (4, channels, image_size, image_size)


def test_one_colour_file_makes_the_set_rgb(animals: Path) -> None:
    write_image(animals / "fish" / "eel" / "colour.png", mode="RGB")
    images = load_folder(animals).images
    assert images.shape[1] == 3
    assert torch.equal(images[0, 0], images[0, 2])


def test_colours_become_grey_when_one_channel_is_asked_for(tmp_path: Path) -> None:
    for name in ("0.png", "1.png"):
        (tmp_path / "set" / "a").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "set" / "a" / name)
    assert load_folder(tmp_path / "set", image_size=4, channels=3).images[0, :, 0, 0].tolist() == [255, 0, 0]
    assert load_folder(tmp_path / "set", image_size=4, channels=1).images[0, :, 0, 0].tolist() == [76]


def test_wide_images_are_cropped_to_their_centre(tmp_path: Path) -> None:
    pixels = numpy.zeros((4, 12), dtype=numpy.uint8)
    pixels[:, 4:8] = 200
    for name in ("0.png", "1.png"):
        (tmp_path / "set" / "a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "set" / "a" / name)
    assert load_folder(tmp_path / "set", image_size=4).images.unique().tolist() == [200]


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    checkerboard = (numpy.indices((32, 32)).sum(0) % 2 * 255).astype(numpy.uint8)
    for name in ("0.png", "1.png"):
        (tmp_path / "set" / "a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(checkerboard).save(tmp_path / "set" / "a" / name)
    images = load_folder(tmp_path / "set", image_size=8).images.float()
    assert (images - 127.5).abs().max() < 16


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    for name in ("0.png", "1.png"):
        (tmp_path / "set" / "a").mkdir(parents=True, exist_ok=True)
        Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "set" / "a" / name)
    assert load_folder(tmp_path / "set", image_size=4, channels=1).images.unique().tolist() == [255]


def test_sixteen_bit_levels_are_scaled(tmp_path: Path) -> None:
    for name in ("0.png", "1.png"):
        (tmp_path / "set" / "a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(numpy.full((4, 4), 0x8000, dtype=numpy.uint16)).save(tmp_path / "set" / "a" / name)
    images = load_folder(tmp_path / "set", image_size=4).images
    assert images.shape[1] == 1
    assert images.unique().tolist() == [128]


@pytest.mark.parametrize("name", ["missing", "missing.zip"])
def test_missing_path_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"^path: no such file or folder: '.*{name}'$"):
        load_folder(tmp_path / name)


def test_file_that_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"^path: expected a folder or a zip archive, got '.*notes.txt'$"):
        load_folder(tmp_path / "notes.txt")


@pytest.mark.parametrize("keep", [0, 0.5])
def test_truncated_archive_is_named(animals: Path, keep: float) -> None:
    archive = zip_folder(animals)
    data = archive.read_bytes()
    archive.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(ValueError, match=r"^path: the zip archive '.*animals.zip' is damaged or incomplete$"):
        load_folder(archive)


def test_damaged_archive_member_is_named(animals: Path) -> None:
    archive = zip_folder(animals)
    data = bytearray(archive.read_bytes())
    position = data.index(b"\x89PNG") + 20
    data[position] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(ValueError, match=r"^path: cannot read the file 'birds/owl/00.png' in '.*animals.zip'$"):
        load_folder(archive)


@pytest.mark.parametrize("content", [b"", b"not an image", None], ids=["empty", "text", "truncated"])
@pytest.mark.parametrize("channels", [None, 1])
def test_damaged_image_is_named(animals: Path, content: bytes | None, channels: int | None) -> None:
    image = animals / "fish" / "cod" / "01.png"
    Image.effect_noise((64, 64), 90).save(image)
    image.write_bytes(image.read_bytes()[:1000] if content is None else content)
    with pytest.raises(ValueError, match=r"^path: the image 'fish/cod/01.png' in '.*animals' is damaged or of an unk"):
        load_folder(animals, channels=channels)


def test_folder_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^path: found no images in '.*'$"):
        load_folder(tmp_path)


def test_images_without_class_folders_are_explained(tmp_path: Path) -> None:
    write_image(tmp_path / "0.png")
    with pytest.raises(ValueError, match=r"^path: expected images in one folder a class, got them directly in '.*'$"):
        load_folder(tmp_path)


def test_unknown_top_folder_lists_what_is_there(animals: Path) -> None:
    with pytest.raises(ValueError, match=r"^path: no folder 'mice' in '.*animals.zip', which holds birds, fish$"):
        load_folder(f"{zip_folder(animals, wrapper='animals')}::birds,mice")


def test_long_lists_of_folders_are_cut(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "many", [f"c{index:02d}" for index in range(25)])
    with pytest.raises(ValueError, match=r"c19, \.\.\.$"):
        load_folder(f"{root}::x")


@pytest.mark.parametrize("suffix", ["::", "::a,", "::,a"])
def test_empty_names_after_the_colons_are_refused(animals: Path, suffix: str) -> None:
    with pytest.raises(ValueError, match=r"^path: expected PATH or PATH::FOLDER,FOLDER, got "):
        load_folder(f"{animals}{suffix}")


def test_class_with_one_image_is_named(animals: Path) -> None:
    write_image(animals / "fish" / "ray" / "0.png")
    with pytest.raises(ValueError, match=r"^path: the class 'fish/ray' in '.*animals' has one image only"):
        load_folder(animals)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"image_size": 0}, ValueError, "image_size: expected at least 1 pixel, got 0"),
        ({"image_size": "28"}, TypeError, "image_size: expected an integer, got str"),
        ({"channels": 4}, ValueError, "channels: expected 1 .* got 4"),
    ],
)
def test_bad_options_are_named(animals: Path, options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_folder(animals, **options)


def test_path_of_wrong_type_is_named() -> None:
    with pytest.raises(TypeError, match="path: expected a path, got int"):
        load_folder(3)


def test_a_missing_package_is_not_taken_for_a_damaged_image(animals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in list(animals.rglob("*.png")):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    for module in ("PIL", "PIL.Image"):
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(ImportError, match=r"needs the package 'pillow'.*mdprop_ext\["):
        load_folder(animals)
