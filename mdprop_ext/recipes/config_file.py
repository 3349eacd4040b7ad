"""Configuration files: what ``--config`` reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mdprop_ext._optional import require
from mdprop_ext.recipes.settings import read_value

#: Keys that only the ``config.json`` of a run has, and which are results rather than options.
_DESCRIPTIVE = ("format", "in_channels", "image_size", "step", "device", "processes", "images", "criterion")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a configuration file says about a run.

    Args:
        recipe: Name of the recipe.
        seed: Of all random numbers.
        data: Where the images come from: name, train, test, image_size, channels.
        values: Hyper-parameters of recipe and training by name.
    """

    recipe: str | None = None
    seed: int | None = None
    data: Mapping[str, Any] | None = None
    values: Mapping[str, Any] = field(default_factory=dict)


def read_config_file(path: Path) -> RunOptions:
    """Reads a YAML or JSON file of options.

    Args:
        path: A mapping of hyper-parameters, in which ``recipe``, ``seed`` and ``data`` may stand too; or the
            ``config.json`` of a run.

    Returns:
        The options; hyper-parameters are not looked at yet.

    Raises:
        ImportError: If PyYAML is not installed.
        ValueError: If the file is missing or not such a mapping.
    """
    yaml = require("yaml", extra="cli")
    try:
        content = yaml.safe_load(path.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"config: cannot read '{path}' ({error.__class__.__name__})") from None
    except yaml.YAMLError as error:
        raise ValueError(f"config: '{path}' is not YAML ({error})") from None
    content = {} if content is None else content
    if not _has_keys(content):
        raise ValueError(f"config: expected '{path}' to hold 'key: value' lines, got {type(content).__name__}")
    if "format" in content and "train_config" in content:
        content = {key: value for key, value in content.items() if key not in _DESCRIPTIVE}
        content |= content.pop("recipe_config", {}) | content.pop("train_config")
    recipe, seed, data = (content.pop(key, None) for key in ("recipe", "seed", "data"))
    if isinstance(data, str):
        data = {"name": data}
    if data is not None and not _has_keys(data):
        raise ValueError(f"config '{path}': data: expected a name or a mapping, got {data!r}")
    try:
        return RunOptions(
            recipe=read_value("recipe", recipe, str | None),
            seed=read_value("seed", seed, int | None),
            data=data,
            values=content,
        )
    except ValueError as error:
        raise ValueError(f"config '{path}': {error}") from None


def _has_keys(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)
