"""Trained models on disk: a folder with ``model.safetensors`` and ``config.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mdprop_ext._distributed import rank_and_world_size
from mdprop_ext._files import write_bytes, write_json
from mdprop_ext._optional import require
from mdprop_ext.data import ImageSet, Splits
from mdprop_ext.recipes.base import Recipe
from mdprop_ext.recipes.registry import name_of, recipe_class
from mdprop_ext.recipes.train_config import TrainConfig

_FORMAT = 1
_WEIGHTS = "model.safetensors"
CONFIG_FILE = "config.json"

#: What a resumed run must have in common with the interrupted one.
_IDENTITY = ("recipe", "recipe_config", "train_config", "criterion", "seed", "device", "processes", "images")


@dataclass(frozen=True, kw_only=True, repr=False)
class Checkpoint:
    """Everything that is needed to build a model again, but its weights.

    Args:
        recipe: Name of the recipe, or ``"module:Class"`` of the user's own.
        recipe_config: The recipe's hyper-parameters by name.
        train_config: The fields of :class:`TrainConfig` by name.
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        seed: Of the run.
        step: Optimizer steps that the weights have seen.
        data: Where the images came from: name, train, test, as given to ``load_splits``.
        criterion: The loss of embeddings that it was trained by.
        device: Kind of device that it was trained on.
        processes: Number of processes that it was trained by.
        images: Digest of pixels and labels of each split.
    """

    recipe: str
    recipe_config: Mapping[str, Any]
    train_config: Mapping[str, Any]
    in_channels: int
    image_size: int
    seed: int
    step: int
    data: Mapping[str, Any]
    criterion: str = ""
    device: str = ""
    processes: int = 1
    images: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        recipe: Recipe[Any],
        config: TrainConfig,
        *,
        splits: Splits,
        data: Mapping[str, Any],
        device: str = "cpu",
        step: int = 0,
    ) -> Checkpoint:
        """Describes a model that ``recipe`` trains on the images of ``splits``."""
        _, channels, height, _ = splits.train.images.shape
        criterion = getattr(recipe.criterion, "__name__", type(recipe.criterion).__name__)
        return cls(
            recipe=name_of(type(recipe)),
            # As it will be read again: JSON has no tuples.
            recipe_config=json.loads(json.dumps(asdict(recipe.config))),
            train_config=asdict(config),
            in_channels=channels,
            image_size=height,
            seed=recipe.seed,
            step=step,
            data=data,
            criterion=config.criterion or criterion,
            device=device,
            processes=rank_and_world_size()[1],
            images={name: _digest(images) for name, images in splits._asdict().items()},
        )

    def difference(self, other: Checkpoint) -> str | None:
        """Says what keeps ``other`` from going on with the run described here, or None."""
        for name in _IDENTITY:
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours == theirs:
                continue
            if name == "images":
                changed = [split for split in ours if ours[split] != theirs.get(split)]
                return f"other images to {changed[0]} on" if changed else "other images"
            if isinstance(ours, Mapping):
                name = next(key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key))
                ours, theirs = ours.get(name), theirs.get(name)
            return f"{name} {theirs!r} instead of {ours!r}"
        return None

    def __repr__(self) -> str:
        images = f"{self.in_channels}x{self.image_size}x{self.image_size}"
        return (
            f"Checkpoint({self.recipe}, {self.train_config.get('model')}, {images}, seed={self.seed}, step={self.step})"
        )

    def configured(self) -> tuple[Recipe[Any], TrainConfig]:
        """Builds the recipe and the options of training.

        Raises:
            TypeError: If a hyper-parameter is unknown or has the wrong type.
            ValueError: If the recipe is unknown or a value is out of range.
        """
        recipe_type = recipe_class(self.recipe)
        recipe = recipe_type(recipe_type.config_class(**self.recipe_config), seed=self.seed)
        return recipe, TrainConfig(**self.train_config)


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
    tensors = {name: storable(tensor) for name, tensor in model.state_dict().items()}
    # Weights first: a configuration that can be read then always has weights beside it.
    write_bytes(folder / _WEIGHTS, safetensors.save(tensors))
    write_json(folder / CONFIG_FILE, describe(checkpoint))


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
    if folder.is_file():
        raise ValueError(f"checkpoint: expected a folder, got the file '{folder}': give its folder '{folder.parent}'")
    for file in (CONFIG_FILE, _WEIGHTS):
        if not (folder / file).is_file():
            raise ValueError(f"checkpoint: no file {file!r} in '{folder}'")
    checkpoint = read_description(folder)
    model = _built(checkpoint, folder / CONFIG_FILE)
    safetensors = require("safetensors.torch", extra="cli")
    failure = require("safetensors", extra="cli").SafetensorError
    try:
        model.load_state_dict(safetensors.load((folder / _WEIGHTS).read_bytes()))
    except failure:
        raise ValueError(f"checkpoint: the file '{folder / _WEIGHTS}' is damaged or incomplete") from None
    except RuntimeError:
        raise ValueError(f"checkpoint: the weights in '{folder}' are not those of its {CONFIG_FILE}") from None
    return model.eval(), checkpoint


def read_description(folder: Path) -> Checkpoint:
    """Reads the ``config.json`` of a checkpoint.

    Raises:
        ValueError: If it is damaged.
    """
    path = folder / CONFIG_FILE
    try:
        return parse_description(json.loads(path.read_bytes()))
    # What a file of other content may lead to: bad JSON or UTF-8, missing and unknown names.
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(_damaged(path, error)) from error


def parse_description(content: Any) -> Checkpoint:
    """Reads what :func:`describe` returned."""
    version = content.pop("format")
    if version != _FORMAT:
        raise ValueError(f"format {version!r}, of which this version knows {_FORMAT} only")
    return Checkpoint(**content)


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns the content of ``config.json``."""
    return {"format": _FORMAT, **asdict(checkpoint)}


def storable(tensor: Tensor) -> Tensor:
    """Copies a tensor to where safetensors takes it: it refuses strides, and tensors that share memory."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def _built(checkpoint: Checkpoint, path: Path) -> nn.Module:
    message = f"checkpoint: cannot build the model that '{path}' describes"
    try:
        recipe, config = checkpoint.configured()
    except TypeError as error:
        raise ValueError(_damaged(path, error)) from error
    except ValueError as error:
        raise ValueError(f"{message} ({error})") from error
    try:
        return recipe.prepare(config.build_model(checkpoint.in_channels, checkpoint.image_size))
    except (TypeError, ValueError) as error:  # the user's own factory may raise either
        raise ValueError(f"{message} ({error})") from error


def _damaged(path: Path, error: Exception) -> str:
    return f"checkpoint: the file '{path}' is damaged or of another version ({error})"


def _digest(images: ImageSet) -> str:
    content = hashlib.blake2b(repr(tuple(images.images.shape)).encode(), digest_size=16)
    for tensor in (images.images, images.labels):
        content.update(tensor.cpu().contiguous().numpy().data)
    return content.hexdigest()
