from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from own_parts import Own
from recipe_cases import small_splits

from mdprop_ext.nn import branch_names
from mdprop_ext.recipes import MDProp, TrainConfig, load_checkpoint, recipe_class, run_training
from mdprop_ext.recipes.criteria import build_criterion
from mdprop_ext.recipes.registry import run_folder_name
from mdprop_ext.recipes.user_objects import call_factory, load_object


def test_modules_in_the_current_folder_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "found_here.py").write_text("class Holder:\n    value = 3\n")
    monkeypatch.chdir(tmp_path)
    assert load_object("model", "found_here:Holder.value") == 3


def test_a_factory_may_import_from_the_current_folder_when_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late_factory.py").write_text("def make():\n    import late_part\n    return late_part.value\n")
    (tmp_path / "late_part.py").write_text("value = 3\n")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    assert call_factory("model", "late_factory:make", {}) == 3
    assert sys.path == path


def test_a_module_that_lacks_another_one_shows_that_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_another.py").write_text("import surely_not_there\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="surely_not_there"):
        load_object("model", "needs_another:make")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere_at_all:make", "model: no module 'nowhere_at_all', looked for in"),
        ("own_parts.deeper:make", "model: no module 'own_parts.deeper'"),
        ("own_parts:make_modle", "model: 'own_parts' has no 'make_modle', did you mean 'make_model'"),
        ("own_parts:nosuch", "model: 'own_parts' has no 'nosuch'$"),
        ("own_parts:__name__.deeper", "model: 'own_parts' has no '__name__.deeper'$"),
        ("own_parts:", "model: expected module:name, such as my_module:make, got 'own_parts:'"),
        ("own parts:make", "model: expected module:name"),
        ("own_parts:__name__", "model: expected 'own_parts:__name__' to be callable, got str"),
        ("own_parts:make_no_module", "model: expected 'own_parts:make_no_module' to return a torch.nn.Module, got str"),
        (
            "own_parts:make_too_little",
            r"to take \(in_channels=..., embedding_dim=..., image_size=...\), got \(channels",
        ),
        ("own_parts:make_wrong_size", r"to give embeddings \[2, 64\] for two images, got shape \[2, 65\]"),
        ("torch.nn:Identity", r"to give embeddings \[2, 64\] for two images, got shape \[2, 1, 16, 16\]"),
    ],
)
def test_wrong_models(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(model=name).build_model(1, 16)


def test_a_model_is_tried_without_traces() -> None:
    model = TrainConfig(model="own_parts:make_model").build_model(1, 16)
    assert all(module.training for module in model.modules())
    assert int(model[1].num_batches_tracked) == 0


def test_a_model_of_ones_own_in_a_run_and_its_checkpoint(tmp_path: Path) -> None:
    config = TrainConfig(model="own_parts:make_model", embedding_dim=8, steps=1, classes_per_batch=4)
    run_training(MDProp(), small_splits(), config, tmp_path)
    model, description = load_checkpoint(tmp_path)
    assert branch_names(model) == ("main", "st", "mt")
    assert description.train_config["model"] == "own_parts:make_model"
    config_file = tmp_path / "config.json"
    content = config_file.read_text()
    config_file.write_text(content.replace("own_parts:make_model", "own_parts:gone"))
    with pytest.raises(ValueError, match=r"cannot build the model that .* describes .*has no 'gone'"):
        load_checkpoint(tmp_path)
    config_file.write_text(content.replace("own_parts:make_model", "own_parts:make_mistake"))
    with pytest.raises(ValueError, match=r"cannot build the model that .* describes \(.*'int' and 'str'\)"):
        load_checkpoint(tmp_path)


def test_wrong_criteria() -> None:
    with pytest.raises(ValueError, match="criterion: 'own_parts' has no 'ROOT'"):
        build_criterion("own_parts:ROOT", classes=3, embedding_dim=4)
    with pytest.raises(ValueError, match=r"criterion: expected .* to take \(classes=..., embedding_dim=...\)"):
        build_criterion("own_parts:make_model", classes=3, embedding_dim=4)
    with pytest.raises(ValueError, match="criterion: expected 'builtins:dict' to return a callable, got dict"):
        build_criterion("builtins:dict", classes=3, embedding_dim=4)
    criterion = build_criterion("own_parts:Proxies", classes=3, embedding_dim=4)
    assert criterion(torch.randn(2, 4), torch.tensor([0, 1])).shape == ()


def test_recipes_of_ones_own() -> None:
    assert recipe_class("own_parts:Own") is Own
    assert run_folder_name("own_parts:Own", 1) == "own_parts.Own-seed1"
    with pytest.raises(ValueError, match="recipe: expected 'own_parts:make_model' to be a subclass of Recipe"):
        recipe_class("own_parts:make_model")
