from __future__ import annotations

import json
from pathlib import Path

import pytest

from mdprop_ext.recipes import MDPropConfig, TrainConfig, apply_values
from mdprop_ext.recipes.config_file import RunOptions, read_config_file


def written(folder: Path, content: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(content)
    return path


def test_values_of_every_type(tmp_path: Path) -> None:
    content = (
        "eps: 8/255\nmt_targets: 3\nlearning_rate: 1e-4  # text in YAML\nweight_decay: 0\npatience: null\nepochs: 2"
    )
    options = read_config_file(written(tmp_path, content))
    recipe, training = apply_values([MDPropConfig(), TrainConfig()], options.values, origin="config")
    assert recipe == MDPropConfig(eps=8 / 255, mt_targets=3)
    assert training == TrainConfig(learning_rate=1e-4, epochs=2)


def test_recipe_seed_and_data_may_stand_in_it_too(tmp_path: Path) -> None:
    path = written(tmp_path, "recipe: mdprop\nseed: 4\ndata: {name: folder, train: birds.zip}\neps: 0.1\n")
    data = {"name": "folder", "train": "birds.zip"}
    assert read_config_file(path) == RunOptions(recipe="mdprop", seed=4, data=data, values={"eps": 0.1})
    assert read_config_file(written(tmp_path, "data: digits")).data == {"name": "digits"}
    assert read_config_file(written(tmp_path, "")) == RunOptions()


def test_the_description_of_a_run_is_such_a_file(tmp_path: Path) -> None:
    description = {
        "format": 1,
        "recipe": "mdprop",
        "recipe_config": {"eps": 0.1},
        "train_config": {"steps": 3},
        "seed": 2,
        "step": 3,
        "data": {"name": "digits"},
    }
    path = written(tmp_path, json.dumps(description))
    expected = RunOptions(recipe="mdprop", seed=2, data={"name": "digits"}, values={"eps": 0.1, "steps": 3})
    assert read_config_file(path) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- eps", r"expected '.*run.yaml' to hold 'key: value' lines, got list"),
        ("1: 2", "to hold 'key: value' lines"),
        ("eps: [", r"run.yaml' is not YAML"),
        ("seed: one", r"config '.*run.yaml': seed: expected an integer, got 'one'"),
        ("seed: true", "seed: expected an integer, got True"),
        ("recipe: 3", "recipe: expected text, got 3"),
        ("data: 3", "data: expected a name or a mapping, got 3"),
        ("data: {1: digits}", "data: expected a name or a mapping, got {1: 'digits'}"),
    ],
)
def test_wrong_files(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_config_file(written(tmp_path, content))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="config: cannot read"):
        read_config_file(tmp_path / "nowhere.yaml")
