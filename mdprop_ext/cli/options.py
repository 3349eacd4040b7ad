"""Options that several commands share, and how ``--help`` shows them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

FLAG = ""  # the metavar of an option that takes no value
RECIPE = typer.Option("--recipe", help="Name of the recipe, see 'mdprop recipes', or module:Class.", metavar="NAME")
DATA = typer.Option("--data", help="digits, omniglot or folder.", metavar="NAME")
TRAIN = typer.Option("--train", help="Training images.", metavar="PATH[::A,B]")
TEST = typer.Option("--test", help="Test images; by default the second half of --train.", metavar="PATH[::A,B]")
IMAGE_SIZE = typer.Option(
    "--image-size",
    help="Height and width in pixels: the centre square is scaled to it. By default that of the checkpoint where there "
    "is one, else 16 for digits, 28 for omniglot and grey folders, 64 for RGB folders.",
    metavar="S",
)
CHANNELS = typer.Option("--channels", help="1 for grey levels, 3 for RGB.", metavar="C")
SET = typer.Option(
    "--set", help="A hyper-parameter, such as steps=100 or eps=8/255; may be repeated.", metavar="KEY=VALUE"
)
CONFIG = typer.Option("--config", help="YAML file of hyper-parameters, or config.json of a run.", metavar="FILE")
RESUME = typer.Option(
    "--resume", help="Go on with the run in --out; its options need not be given again.", metavar=FLAG
)
RESUME_ALL = typer.Option("--resume", help="Keep finished runs and go on with unfinished ones.", metavar=FLAG)
DEVICE = typer.Option("--device", help="auto, cpu or cuda.", metavar="NAME")
TENSORBOARD = typer.Option("--tensorboard", help="Write event files for TensorBoard too.", metavar=FLAG)
EPOCHS = typer.Option("--epochs", help="Passes of the batch sampler; by default 'steps' counts.", metavar="N")
OUT = typer.Option("--out", help="Folder for the results.", metavar="DIR")
CHECKPOINT = typer.Option("--checkpoint", help="Folder that 'mdprop train' wrote.", metavar="DIR")
OTHER_DATA = typer.Option("--data", help="These images, not the test images of training.", metavar="NAME")
ATTACKS = typer.Option("--attacks", help="Of st, mt2, mt5, ... and pgd.", metavar="NAME,...")
ATTACK_SEED = typer.Option("--seed", help="Of the attacks; by default that of training.", metavar="S")


class Command(TyperCommand):
    """A command whose ``--help`` is shown as the flag that it is."""

    def get_help_option(self, ctx: Any) -> Any:
        """Returns the option."""
        return _as_flag(super().get_help_option(ctx))


class CommandGroup(TyperGroup):
    """All commands, with the same ``--help``."""

    def get_help_option(self, ctx: Any) -> Any:
        """Returns the option."""
        return _as_flag(super().get_help_option(ctx))


def option_names(context: typer.Context) -> list[str]:
    """Returns the names of all options of a command, with underscores."""
    options = {option.name: option.opts[0] for option in context.command.params}
    return [options[name].removeprefix("--").replace("-", "_") for name in context.params]


def given_arguments(context: typer.Context, **resolved: Any) -> Mapping[str, Any]:
    """Returns all arguments of a command by the names of its options, as JSON can hold them.

    Args:
        context: Of the command.
        resolved: Values that were decided on in place of what was given.
    """
    named = zip(option_names(context), context.params.values(), strict=True)
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in named}
    return {**plain, **resolved}


def _as_flag(option: Any) -> Any:
    if option is not None:
        option.metavar = FLAG
    return option
