from __future__ import annotations

from pathlib import Path

import pytest
from recipe_cases import small_splits, write_folder

from mdprop_ext.cli.data_source import DataSource
from mdprop_ext.recipes import Checkpoint, Plain, TrainConfig


def test_repr_has_what_was_given():
    assert repr(DataSource("digits")) == "DataSource(name='digits')"
    source = DataSource("folder", test="birds.zip", channels=3)
    assert repr(source) == "DataSource(name='folder', test='birds.zip', channels=3)"
    assert eval(repr(source)) == source


def test_images_get_the_size_and_channels_that_the_model_was_trained_on(tmp_path: Path) -> None:
    folder = str(write_folder(tmp_path / "images"))  # of 6 x 6 pixels
    checkpoint = Checkpoint.of(Plain(), TrainConfig(), splits=small_splits(), data={})
    both = DataSource("folder", train=f"{folder}::class0,class1,class2,class3", test=f"{folder}::class4,class5")
    for source, images in ((DataSource("folder", test=folder), 36), (both, 6)):
        assert source.like_checkpoint(checkpoint).load_test().images.shape == (images, 1, 16, 16)
    larger = DataSource("folder", test=folder, image_size=20).like_checkpoint(checkpoint)
    assert larger.load_test().images.shape == (36, 1, 20, 20), "a size that is asked for stays"
    with pytest.raises(ValueError, match="channels: the model takes images of 1, got 3"):
        DataSource("digits", channels=3).like_checkpoint(checkpoint)


def test_a_source_is_found_again_by_its_description():
    source = DataSource("folder", test="birds.zip", channels=3)
    assert DataSource.described(source.describe()) == source
    with pytest.raises(ValueError, match="data: the checkpoint does not say what it was trained on"):
        DataSource.described({"origin": "a script"})
