"""The forms of batches that loaders give."""

from __future__ import annotations

import pytest
import torch

from mdprop_ext.attacks import unpack_batch

X, Y = torch.rand(3, 1, 2, 2), torch.tensor([2, 0, 1])
ONE_HOT = torch.eye(3)[Y]


@pytest.mark.parametrize(
    ("batch", "labels"),
    [
        (X, None),
        ((X,), None),
        ((X, Y), Y),
        ([X, Y], Y),
        ((X, ONE_HOT, torch.arange(3)), ONE_HOT),
        ({"image": X, "label": Y, "path": ["a", "b", "c"]}, Y),
        ({"pixel_values": X, "labels": Y}, Y),
        ({"input_tensors": X, "labels": Y, "idx": torch.arange(3)}, Y),
        ({"x": X}, None),
        ((X, {"labels": Y}), {"labels": Y}),
    ],
)
def test_forms(batch, labels):
    images, found = unpack_batch(batch)
    assert images is X
    assert found is labels or found == labels


def test_one_hot_labels_become_classes_if_asked():
    assert torch.equal(unpack_batch((X, ONE_HOT, torch.arange(3)), class_ids=True)[1], Y)
    assert torch.equal(unpack_batch((X, ONE_HOT.bool()), class_ids=True)[1], Y)
    assert unpack_batch((X, Y), class_ids=True)[1] is Y
    for labels in (torch.ones(3, 3), torch.zeros(3, 3), Y.float(), None):
        with pytest.raises(ValueError, match="batch: class_ids expects labels int64"):
            unpack_batch((X, labels), class_ids=True)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ("text", TypeError, "batch: expected images, .* got str"),
        ((), TypeError, "batch: expected images, .* got tuple"),
        (("a.png", 3), TypeError, "batch: expected images as a tensor, got str"),
        ({"label": Y}, ValueError, "batch: expected images under one of x, image, .*, got"),
        ({"x": X, "image": X}, ValueError, "batch: expected one of .*, got x, image"),
    ],
)
def test_other_forms_are_refused(batch, error, message):
    with pytest.raises(error, match=message):
        unpack_batch(batch)
