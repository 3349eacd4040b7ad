"""Trained models on disk: a folder with ``model.safetensors`` and ``config.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from mdprop_ext._files import write_bytes, write_json
from mdprop_ext._optional import require
from mdprop_ext.recipes.base import Recipe
from mdprop_ext.recipes.registry import recipe_class
from mdprop_ext.recipes.train_config import TrainConfig

_FORMAT = 1
_WEIGHTS = "model.safetensors"
_CONFIG = "config.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything that is needed to build a model again, but its weights.

    Args:
        recipe: Name of the recipe.
        recipe_config: The recipe's hyper-parameters by name.
        train_config: The fields of :class:`TrainConfig` by name.
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        seed: Of the run.
        step: Optimizer steps that the weights have seen.
        data: Where the images came from: name, train, test, as given to ``load_splits``.
    """

    recipe: str
    recipe_config: Mapping[str, Any]
    train_config: Mapping[str, Any]
    in_channels: int
    image_size: int
    seed: int
    step: int
    data: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        recipe: Recipe[Any],
        config: TrainConfig,
        *,
        image_shape: tuple[int, int, int],
        step: int,
        data: Mapping[str, Any],
    ) -> Checkpoint:
        """Describes a model that ``recipe`` trained on images of shape ``[C, H, W]``."""
        return cls(
            recipe=recipe.name,
            recipe_config=asdict(recipe.config),
            train_config=asdict(config),
            in_channels=image_shape[0],
            image_size=image_shape[1],
            seed=recipe.seed,
            step=step,
            data=data,
        )

    def build(self) -> nn.Module:
        """Builds the model with new weights, prepared by its recipe.

        Raises:
            TypeError: If a hyper-parameter is unknown or has the wrong type.
            ValueError: If the recipe is unknown or a value is out of range.
        """
        recipe_type = recipe_class(self.recipe)
        recipe = recipe_type(recipe_type.config_class(**self.recipe_config), seed=self.seed)
        return recipe.prepare(TrainConfig(**self.train_config).build_model(self.in_channels, self.image_size))


def save_checkpoint(folder: Path, model: nn.Module, checkpoint: Checkpoint) -> None:
    """Writes the two files of a checkpoint, each all at once.

    Args:
        folder: An existing folder; files of an earlier checkpoint are replaced.
        model: The prepared model.
        checkpoint: Its description.

    Raises:
        ImportError: If safetensors is not installed.
    """
    safetensors = require("safetensors.torch", extra="cli")
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    # Weights first: a configuration that can be read then always has weights beside it.
    write_bytes(folder / _WEIGHTS, safetensors.save(tensors))
    write_json(folder / _CONFIG, {"format": _FORMAT, **asdict(checkpoint)})


def load_checkpoint(folder: str | Path) -> tuple[nn.Module, Checkpoint]:
    """Loads a model that :func:`save_checkpoint` wrote.

    Args:
        folder: The checkpoint's folder.

    Returns:
        The model, with its recipe's branches and in evaluation mode, and its description.

    Raises:
        ImportError: If safetensors is not installed.
        ValueError: If the folder or a file is missing or damaged, or the files do not belong together.
    """
    folder = Path(folder)
    for file in (_CONFIG, _WEIGHTS):
        if not (folder / file).is_file():
            raise ValueError(f"checkpoint: no file {file!r} in '{folder}'")
    checkpoint, model = _described_model(folder / _CONFIG)
    safetensors = require("safetensors.torch", extra="cli")
    failure = require("safetensors", extra="cli").SafetensorError
    try:
        model.load_state_dict(safetensors.load((folder / _WEIGHTS).read_bytes()))
    except failure:
        raise ValueError(f"checkpoint: the file '{folder / _WEIGHTS}' is damaged or incomplete") from None
    except RuntimeError:
        raise ValueError(f"checkpoint: the weights in '{folder}' are not those of its {_CONFIG}") from None
    return model.eval(), checkpoint


def _described_model(path: Path) -> tuple[Checkpoint, nn.Module]:
    try:
        content = json.loads(path.read_bytes())
        version = content.pop("format")
        if version != _FORMAT:
            raise ValueError(f"format {version!r}, of which this version knows {_FORMAT} only")
        checkpoint = Checkpoint(**content)
        return checkpoint, checkpoint.build()
    # What a file of other content may lead to: bad JSON or UTF-8, missing and unknown names, values of wrong types.
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"checkpoint: the file '{path}' is damaged or of another version ({error})") from error
