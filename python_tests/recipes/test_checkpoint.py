from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from recipe_cases import small_batch, small_splits
from torch import nn

from mdprop_ext.recipes import RECIPES, Checkpoint, Recipe, TrainConfig, load_checkpoint, recipe_class, save_checkpoint

CONFIG = TrainConfig(embedding_dim=8)


def saved(folder: Path, recipe: Recipe) -> nn.Module:
    folder.mkdir()
    model = recipe.prepare(CONFIG.build_model(1, 16)).train()
    recipe.step(model, small_batch())["loss"].backward()
    description = Checkpoint.of(recipe, CONFIG, splits=small_splits(), step=4, data={"name": "digits"})
    save_checkpoint(folder, model, description)
    return model


@pytest.mark.parametrize("name", list(RECIPES))
def test_round_trip(tmp_path: Path, name: str) -> None:
    recipe = recipe_class(name)(seed=3)
    model = saved(tmp_path / "run", recipe)
    loaded, description = load_checkpoint(tmp_path / "run")
    assert description == Checkpoint.of(recipe, CONFIG, splits=small_splits(), step=4, data={"name": "digits"})
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[key]), key
    assert not loaded.training
    images, _ = small_batch()
    assert torch.equal(model.eval()(images), loaded(images))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.json", "model.safetensors"]


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_damaged_checkpoints(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    saved(folder, recipe_class("plain")())
    weights, config = (folder / "model.safetensors").read_bytes(), (folder / "config.json").read_text()

    def fails(message: str) -> None:
        with pytest.raises(ValueError, match=message):
            load_checkpoint(folder)
        (folder / "model.safetensors").write_bytes(weights)
        (folder / "config.json").write_text(config)

    (folder / "model.safetensors").write_bytes(weights[:1000])
    fails("is damaged or incomplete")
    (folder / "model.safetensors").write_bytes(b"")
    fails("is damaged or incomplete")
    (folder / "config.json").write_text(config[:50])
    fails("config.json' is damaged or of another version")
    (folder / "config.json").write_text("[]")
    fails("config.json' is damaged or of another version")
    edit_config(folder, format=2)
    fails("format 2")
    edit_config(folder, recipe="mdprob")
    fails("no recipe 'mdprob', did you mean 'mdprop'")
    edit_config(folder, surprise=1)
    fails("config.json' is damaged or of another version")
    edit_config(folder, recipe_config={"surprise": 1})
    fails("config.json' is damaged or of another version .*surprise")
    edit_config(folder, train_config={"model": "resnet18"})
    fails("are not those of its config.json")
    (folder / "model.safetensors").unlink()
    fails("no file 'model.safetensors'")
    load_checkpoint(folder)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file 'config\\.json'"):
        load_checkpoint(tmp_path / "nowhere")


def test_a_configuration_is_not_there_before_its_weights(tmp_path: Path) -> None:
    recipe = recipe_class("plain")()
    model = saved(tmp_path / "run", recipe)
    for path in (tmp_path / "run").iterdir():
        path.unlink()
    (tmp_path / "run" / "model.safetensors").mkdir()  # so that the weights cannot be written
    with pytest.raises(OSError, match=r"model\.safetensors"):
        save_checkpoint(
            tmp_path / "run", model, Checkpoint.of(recipe, CONFIG, splits=small_splits(), data={"name": "digits"})
        )
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["model.safetensors"]
