"""The commands and their options."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mdprop_ext._files import check_output_folder
from mdprop_ext.cli.compare import compare_recipes
from mdprop_ext.cli.data_source import DataSource
from mdprop_ext.cli.evaluate import evaluate_checkpoint
from mdprop_ext.cli.forward import run_benchmarks, run_module_main
from mdprop_ext.cli.plots import write_plots
from mdprop_ext.cli.progress import RunProgress
from mdprop_ext.cli.train import run_plan
from mdprop_ext.cli.training_plan import TrainingOptions, check_seed, plan_comparison, plan_training
from mdprop_ext.recipes import RECIPES, grid_settings
from mdprop_ext.recipes.processes import is_first_process, joined_processes

_RECIPE = typer.Option("--recipe", help="Name of the recipe, see 'mdprop recipes', or module:Class.", metavar="NAME")
_DATA = typer.Option("--data", help="digits, omniglot or folder.", metavar="NAME")
_TRAIN = typer.Option("--train", help="Training images.", metavar="PATH[::A,B]")
_TEST = typer.Option("--test", help="Test images; by default the second half of --train.", metavar="PATH[::A,B]")
_IMAGE_SIZE = typer.Option("--image-size", help="Height and width in pixels.")
_CHANNELS = typer.Option("--channels", help="1 for grey levels, 3 for RGB.")
_SET = typer.Option("--set", help="A hyper-parameter; may be repeated.", metavar="KEY=VALUE")
_CONFIG = typer.Option("--config", help="YAML file of hyper-parameters, or config.json of a run.", metavar="FILE")
_RESUME = typer.Option("--resume", help="Go on with the run in --out; its options need not be given again.")
_DEVICE = typer.Option("--device", help="auto, cpu or cuda.", metavar="NAME")
_TENSORBOARD = typer.Option("--tensorboard", help="Write event files for TensorBoard too.")
_EPOCHS = typer.Option("--epochs", help="Passes of the batch sampler; by default 'steps' counts.")
_OUT = typer.Option("--out", help="Folder for the results.", metavar="DIR")

# Options of these commands are read by the modules that they go to.
_FORWARDED: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def build_app() -> typer.Typer:
    """Returns the application with all commands."""
    app = typer.Typer(
        help="Trains and attacks metric learning on mixtures of distributions.",
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.command("train")(train)
    app.command("eval")(evaluate)
    app.command("compare")(compare)
    app.command("recipes")(recipes)
    app.command("info", context_settings=_FORWARDED)(info)
    app.command("selftest", context_settings=_FORWARDED)(selftest)
    app.command("bench", context_settings=_FORWARDED)(bench)
    return app


def train(
    out: Annotated[Path, _OUT],
    recipe: Annotated[str | None, _RECIPE] = None,
    data: Annotated[str | None, _DATA] = None,
    train_path: Annotated[str | None, _TRAIN] = None,
    test_path: Annotated[str | None, _TEST] = None,
    image_size: Annotated[int | None, _IMAGE_SIZE] = None,
    channels: Annotated[int | None, _CHANNELS] = None,
    config: Annotated[Path | None, _CONFIG] = None,
    settings: Annotated[list[str] | None, _SET] = None,
    epochs: Annotated[int | None, _EPOCHS] = None,
    seed: Annotated[int | None, typer.Option(help="Of all random numbers, at least 0.")] = None,
    device: Annotated[str, _DEVICE] = "auto",
    resume: Annotated[bool, _RESUME] = False,
    tensorboard: Annotated[bool, _TENSORBOARD] = False,
) -> None:
    """Train a model by a recipe; writes checkpoint, log, metrics and plots."""
    options = TrainingOptions(
        recipe=recipe,
        data=data,
        train=train_path,
        test=test_path,
        image_size=image_size,
        channels=channels,
        config=config,
        settings=settings or (),
        epochs=epochs,
        seed=seed,
    )
    check_output_folder(out)
    plan = plan_training(options, out, resume=resume)
    with joined_processes(device):
        result = run_plan(plan, out, device=device, resume=resume, tensorboard=tensorboard)
        if is_first_process():
            write_plots(out, {plan.name: result.metrics}, {plan.name: result.history})
            _print_summary(result.metrics, out)


def evaluate(
    checkpoint: Annotated[Path, typer.Option(help="Folder that 'mdprop train' wrote.", metavar="DIR")],
    out: Annotated[Path, _OUT],
    data: Annotated[
        str | None, typer.Option(help="Test on these images, not on those of training.", metavar="NAME")
    ] = None,
    train_path: Annotated[str | None, _TRAIN] = None,
    test_path: Annotated[str | None, _TEST] = None,
    image_size: Annotated[int | None, _IMAGE_SIZE] = None,
    channels: Annotated[int | None, _CHANNELS] = None,
    attacks: Annotated[str, typer.Option(help="Of st, mt2, mt5, ... and pgd.")] = "st,mt2,mt5",
    eps: Annotated[str, typer.Option(help="Radii in 1/255.")] = "4,8,16",
    steps: Annotated[str, typer.Option(help="Numbers of gradient steps.")] = "1,5",
    seed: Annotated[int | None, typer.Option(help="Of the attacks; by default that of training.")] = None,
    device: Annotated[str, _DEVICE] = "auto",
) -> None:
    """Measure a trained model, clean and under attack; writes metrics and a plot."""
    radii = _listed("eps", eps, float)
    if not all(0 <= radius <= 255 for radius in radii):
        raise ValueError(f"eps: expected radii from 0 to 255, in 1/255, got {eps!r}")
    grid = grid_settings(_listed("attacks", attacks, str), radii, _listed("steps", steps, int))
    check_seed(seed or 0)
    if data is None and (train_path or test_path):
        raise ValueError("data: expected one of digits, omniglot, folder beside --train and --test, got none")
    source = None if data is None else DataSource(data, train_path, test_path, image_size, channels)
    with RunProgress("eval") as progress:
        metrics = evaluate_checkpoint(
            checkpoint, out, grid, source=source, seed=seed, device=device, observe=progress.observe_evaluation
        )
    write_plots(out, {metrics["recipe"]: metrics})
    _print_summary(metrics, out)


def compare(
    out: Annotated[Path, _OUT],
    data: Annotated[str | None, _DATA] = None,
    names: Annotated[
        str, typer.Option("--recipes", help="The first one is what the others are compared with.")
    ] = "plain,mdprop",
    train_path: Annotated[str | None, _TRAIN] = None,
    test_path: Annotated[str | None, _TEST] = None,
    image_size: Annotated[int | None, _IMAGE_SIZE] = None,
    channels: Annotated[int | None, _CHANNELS] = None,
    config: Annotated[Path | None, _CONFIG] = None,
    settings: Annotated[list[str] | None, _SET] = None,
    epochs: Annotated[int | None, _EPOCHS] = None,
    seeds: Annotated[int, typer.Option(help="Number of runs of each recipe, with seeds 0, 1, ...")] = 1,
    device: Annotated[str, _DEVICE] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep finished runs and go on with unfinished ones.")
    ] = False,
) -> None:
    """Train several recipes on the same images; writes all runs, a table and plots."""
    options = TrainingOptions(
        data=data,
        train=train_path,
        test=test_path,
        image_size=image_size,
        channels=channels,
        config=config,
        settings=settings or (),
        epochs=epochs,
    )
    check_output_folder(out)
    plans = plan_comparison(options, _listed("recipes", names, str), seeds=seeds)
    with joined_processes(device):
        compare_recipes(plans, out, device=device, resume=resume)


def recipes(
    as_json: Annotated[bool, typer.Option("--json", help="For machines, with hyper-parameters.")] = False,
) -> None:
    """List the recipes."""
    rows = [{"name": name, "summary": recipe.summary, "paper": recipe.paper} for name, recipe in RECIPES.items()]
    if as_json:
        settings = [dataclasses.asdict(recipe.config_class()) for recipe in RECIPES.values()]
        described = [{**row, "settings": own} for row, own in zip(rows, settings, strict=True)]
        sys.stdout.write(json.dumps(described, indent=2) + "\n")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("name", "summary", "paper"):
        table.add_column(column, no_wrap=column == "name")
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)


def info(context: typer.Context) -> None:
    """Show versions, compiled kernels and devices; --json for machines."""
    raise typer.Exit(run_module_main("mdprop_ext.info", context.args))


def selftest(context: typer.Context) -> None:
    """Check every op against its reference, in seconds."""
    raise typer.Exit(run_module_main("mdprop_ext.selftest", context.args))


def bench(context: typer.Context) -> None:
    """Measure the ops, in a checkout of the source: bench OP ... --json FILE --quick."""
    raise typer.Exit(run_benchmarks(context.args))


def _print_summary(metrics: dict[str, Any], out: Path) -> None:
    attacked = ", ".join(f"{name} {100 * each['recall_at_1']:.1f} %" for name, each in metrics["robust"].items())
    clean = 100 * metrics["test"]["recall_at_1"]
    sys.stdout.write(f"{metrics['recipe']}: R@1 {clean:.1f} % clean; attacked: {attacked}; results in {out}\n")


def _listed(name: str, text: str, read: Callable[[str], Any]) -> list[Any]:
    try:
        values = [read(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError:
        values = []
    if not values:
        raise ValueError(f"{name}: expected values separated by commas, got {text!r}")
    return values
