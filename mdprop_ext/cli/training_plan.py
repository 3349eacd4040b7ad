"""What ``mdprop train`` and ``mdprop compare`` are asked for, gathered from options, a file and an earlier run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from mdprop_ext._arguments import check_integer, check_seed
from mdprop_ext.cli.data_source import DataSource
from mdprop_ext.recipes import RECIPES, Recipe, TrainConfig, apply_settings, apply_values, recipe_class
from mdprop_ext.recipes.checkpoint import Checkpoint
from mdprop_ext.recipes.config_file import RunOptions, read_config_file
from mdprop_ext.recipes.run import saved_description
from mdprop_ext.recipes.settings import unknown_key

_FILE_KEYS = ("recipe", "seed", "data")  # of a configuration file, beside hyper-parameters


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of the command line; None where one was not given.

    Args:
        recipe: Name of the recipe.
        data: Name of the data set.
        train: ``PATH[::A,B]`` of the training classes.
        test: ``PATH[::A,B]`` of the test classes.
        image_size: Height and width in pixels.
        channels: 1 or 3.
        config: YAML or JSON file of options.
        settings: ``key=value`` pairs.
        epochs: Passes of the batch sampler.
        seed: Of all random numbers.
        command_options: Names of all options of the command, for messages.
    """

    recipe: str | None = None
    data: str | None = None
    train: str | None = None
    test: str | None = None
    image_size: int | None = None
    channels: int | None = None
    config: Path | None = None
    settings: Sequence[str] = ()
    epochs: int | None = None
    seed: int | None = None
    command_options: Collection[str] = ()

    def read_file(self) -> RunOptions:
        """Returns what the file says; nothing where there is none.

        Raises:
            ValueError: If the file is damaged, or it describes the images by keys that there are not.
        """
        if self.config is None:
            return RunOptions()
        options = read_config_file(self.config)
        # Before a missing name, which may be the misspelt key, and unless --data replaces them all.
        for key in () if self.data is not None else options.data or ():
            if key not in _keys(DataSource):
                raise unknown_key(key, _keys(DataSource), origin=f"config '{self.config}': data")
        return options

    def source(self, described: Mapping[str, Any] | None = None) -> DataSource:
        """Returns the images to work on.

        Args:
            described: Those of a file or an earlier run, which the options change; ``--data`` replaces them.

        Raises:
            ValueError: If there are none, or they are described wrongly.
        """
        names = ("train", "test", "image_size", "channels")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        entries = {"name": self.data, **given} if self.data is not None else {**(described or {}), **given}
        name = entries.pop("name", None)
        if not isinstance(name, str):
            got = "none" if name is None else repr(name)
            raise ValueError(f"data: expected --data NAME, or a name under 'data' in the --config file, got {got}")
        (source,) = apply_values([DataSource(name)], entries, origin="data")
        return source  # type: ignore[no-any-return]

    def configure(
        self, configs: Sequence[Any], *layers: tuple[str, Mapping[str, Any]], also: Collection[str] = ()
    ) -> tuple[Any, ...]:
        """Changes configurations by values of a file or an earlier run, then by the options.

        Args:
            configs: The configurations.
            layers: Where values come from, and the values.
            also: Keys of other recipes that are trained too, for messages.
        """
        known = {name for config in configs for name in _keys(config)}.union(also)
        for origin, values in layers:
            self._check_keys(origin, values, known)
            try:
                configs = apply_values(configs, values, origin="config", also=(*also, *_FILE_KEYS))
            except ValueError as error:
                raise ValueError(f"{origin}: {str(error).removeprefix('config: ')}") from None
        if self.epochs is not None:
            configs = apply_values(configs, {"epochs": self.epochs}, origin="epochs")
        self._check_keys("set", [_key(setting) for setting in self.settings], known)
        return apply_settings(configs, self.settings, also=also)

    def _check_keys(self, origin: str, keys: Iterable[str], known: Collection[str]) -> None:
        """Raises if an unknown key is one of other recipes than those that are trained, or an option of the command."""
        for key in keys:
            owners = [name for name, recipe in RECIPES.items() if key in _keys(recipe.config_class())]
            if key not in known and owners:
                raise ValueError(f"{origin}: the recipe has no key {key!r}, it is one of {', '.join(owners)}")
            if key not in known and key in self.command_options:
                raise ValueError(f"{origin}: {key!r} is an option of the command: --{key.replace('_', '-')}")


@dataclass(frozen=True)
class TrainingPlan:
    """A run that is ready to start.

    Args:
        name: Of the recipe.
        recipe: The recipe, configured and seeded.
        config: Model, optimiser and length.
        source: The images.
    """

    name: str
    recipe: Recipe[Any]
    config: TrainConfig
    source: DataSource


def plan_training(options: TrainingOptions, out: Path, *, resume: bool) -> TrainingPlan:
    """Decides what to train.

    Options on the command line come before those of the file, and these before those of the run to resume.

    Args:
        options: Of the command line.
        out: Folder of the run.
        resume: Whether to go on with the run in it.

    Returns:
        The plan.

    Raises:
        ValueError: If an option is missing or wrong, or another recipe is asked for than that of the run.
    """
    saved = saved_description(out) if resume else None
    file = options.read_file()
    name = options.recipe or file.recipe or (saved and saved.recipe)
    if not name:
        earlier = f", since there is no run to resume in '{out}'" if resume else ""
        raise ValueError(f"recipe: expected --recipe NAME, or 'recipe' in the --config file{earlier}, got none")
    recipe_type = recipe_class(name)
    if saved is not None and name != saved.recipe:
        raise ValueError(f"resume: the run in '{out}' is one of {saved.recipe!r}, got recipe {name!r}")
    layers = [(f"config '{options.config}'", file.values)]
    if saved is not None:
        layers.insert(0, (f"config of '{out}'", {**saved.recipe_config, **saved.train_config}))
    recipe_config, config = options.configure([recipe_type.config_class(), TrainConfig()], *layers)
    seeds = (options.seed, file.seed, None if saved is None else saved.seed)
    seed = next((given for given in seeds if given is not None), 0)
    check_seed(seed)
    described = {**_described(saved), **(file.data or {})}
    return TrainingPlan(name, recipe_type(recipe_config, seed=seed), config, options.source(described))


def plan_comparison(options: TrainingOptions, names: Sequence[str], *, seeds: int) -> list[TrainingPlan]:
    """Decides what to train for a comparison: every recipe with the seeds 0, 1, ...

    Args:
        options: Of the command line. A hyper-parameter goes to the recipes that have it.
        names: Recipes; of equal ones the first counts.
        seeds: Number of runs of each recipe.

    Returns:
        The plans, seed by seed.

    Raises:
        ValueError: If an option is missing or wrong.
    """
    check_integer("seeds", seeds, least=1)
    file = options.read_file()
    source = options.source(file.data)
    recipe_types = {name: recipe_class(name) for name in names}
    keys = {name: _keys(recipe_type.config_class()) for name, recipe_type in recipe_types.items()}
    configured = {}
    for name, recipe_type in recipe_types.items():
        elsewhere = set().union(*keys.values()) - keys[name]
        values = {key: value for key, value in file.values.items() if key not in elsewhere}
        own = replace(options, settings=[each for each in options.settings if _key(each) not in elsewhere])
        configured[name] = own.configure(
            [recipe_type.config_class(), TrainConfig()], (f"config '{options.config}'", values), also=elsewhere
        )
    return [
        TrainingPlan(name, recipe_types[name](recipe_config, seed=seed), config, source)
        for seed in range(seeds)
        for name, (recipe_config, config) in configured.items()
    ]


def _described(saved: Checkpoint | None) -> Mapping[str, Any]:
    return {} if saved is None else saved.data


def _keys(config: Any) -> set[str]:
    return {each.name for each in fields(config)}


def _key(setting: str) -> str:
    return setting.partition("=")[0].strip()
