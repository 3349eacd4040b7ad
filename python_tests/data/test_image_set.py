"""Tests of the in-memory image set."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch.utils.data import DataLoader

from mdprop_ext.data import ClassBatchSampler, ImageSet


@pytest.fixture
def small_set() -> ImageSet:
    images = torch.arange(5 * 2 * 3, dtype=torch.uint8).view(5, 1, 2, 3)
    return ImageSet(images, torch.tensor([2, 0, 1, 2, 0]), ("a", "b", "c"))


def test_length_is_the_number_of_images(small_set: ImageSet) -> None:
    assert len(small_set) == 5


@pytest.mark.parametrize("classes", [["c", "a"], [2, 0], ["c", 0]])
def test_selected_classes_are_renumbered_in_the_order_asked_for(small_set: ImageSet, classes: list[str | int]) -> None:
    selected = small_set.select_classes(classes)
    assert selected.classes == ("c", "a")
    assert selected.labels.tolist() == [0, 1, 0, 1]
    assert torch.equal(selected.images, small_set.images[[0, 1, 3, 4]])


def test_floats_are_in_the_unit_range() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    floats = ImageSet(images, torch.zeros(3, dtype=torch.int64), ("a",)).floats()
    assert floats.dtype == torch.float32
    torch.testing.assert_close(floats.flatten(), torch.tensor([0.0, 0.2, 1.0]))


@pytest.mark.parametrize("indices", [[3, 0, 3], torch.tensor([3, 0, 3])])
def test_floats_of_some_images(small_set: ImageSet, indices: list[int] | torch.Tensor) -> None:
    assert torch.equal(small_set.floats(indices), small_set.floats()[[3, 0, 3]])


def test_floats_of_no_images(small_set: ImageSet) -> None:
    assert small_set.floats([]).shape == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("classes", "message"),
    [(["d"], "'d'"), ([3], "got 3"), ([-1], "got -1"), (["a", 0], "a class twice")],
)
def test_bad_selections_are_named(small_set: ImageSet, classes: list[str | int], message: str) -> None:
    with pytest.raises(ValueError, match=f"classes: .*{message}"):
        small_set.select_classes(classes)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": numpy.zeros((5, 1, 2, 3), numpy.uint8)}, TypeError, "images: expected a tensor, got ndarray"),
        ({"labels": [2, 0, 1, 2, 0]}, TypeError, "labels: expected a tensor, got list"),
        ({"images": torch.zeros(5, 1, 2, 3)}, TypeError, "images: expected dtype torch.uint8"),
        ({"images": torch.zeros(5, 2, 3, dtype=torch.uint8)}, ValueError, r"images: expected shape \[N, C, H, W\]"),
        ({"labels": torch.zeros(5)}, TypeError, "labels: expected dtype torch.int64"),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, ValueError, r"labels: expected shape \[5\], got \[4\]"),
        ({"labels": torch.tensor([0, 1, 2, 3, 0])}, ValueError, "labels: expected values from 0 to 2"),
        ({"classes": ("a", "b", "a")}, ValueError, "classes: expected each name once"),
    ],
)
def test_bad_fields_are_named(
    small_set: ImageSet, change: dict[str, object], error: type[Exception], message: str
) -> None:
    fields = {"images": small_set.images, "labels": small_set.labels, "classes": small_set.classes, **change}
    with pytest.raises(error, match=message):
        ImageSet(**fields)


def test_repr_is_one_short_line():
    images = torch.zeros(6, 1, 4, 5, dtype=torch.uint8)
    labels = torch.arange(6) % 5
    assert repr(ImageSet(images, labels, ("a", "b", "c", "d", "e"))) == (
        "ImageSet(6 images of 1 x 4 x 5 in 5 classes: 'a', 'b', 'c', ...)"
    )
    assert repr(ImageSet(images, labels % 2, ("a", "b"))) == "ImageSet(6 images of 1 x 4 x 5 in 2 classes: 'a', 'b')"


def test_items_are_images_in_the_unit_range_with_their_labels(small_set: ImageSet) -> None:
    items = list(small_set)
    assert torch.equal(torch.stack([image for image, _ in items]), small_set.floats())
    assert [label for _, label in items] == [2, 0, 1, 2, 0]
    assert all(type(label) is int for _, label in items)
    assert torch.equal(small_set[-1][0], small_set.floats()[4])
    for index, error in ((5, IndexError), (-6, IndexError), (slice(2), TypeError), ("a", TypeError)):
        with pytest.raises(error):
            small_set[index]


def test_a_loader_takes_a_set_with_a_sampler_of_batches(small_set: ImageSet) -> None:
    sampler = ClassBatchSampler(small_set.labels, classes=2, per_class=2, seed=1)
    batches = list(DataLoader(small_set, batch_sampler=sampler))
    assert len(batches) == len(sampler)
    for positions, (images, labels) in zip(sampler, batches, strict=True):
        assert torch.equal(images, small_set.floats(positions))
        assert torch.equal(labels, small_set.labels[positions])
