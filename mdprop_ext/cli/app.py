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
from mdprop_ext.cli.attack import attack_checkpoint
from mdprop_ext.cli.compare import compare_recipes
from mdprop_ext.cli.data_source import DataSource
from mdprop_ext.cli.evaluate import evaluate_checkpoint
from mdprop_ext.cli.forward import run_benchmarks, run_module_main
from mdprop_ext.cli.plots import write_attack_plots, write_plots
from mdprop_ext.cli.progress import RunProgress
from mdprop_ext.cli.reports import finish_results, remake_report
from mdprop_ext.cli.train import run_plan
from mdprop_ext.cli.training_plan import TrainingOptions, check_seed, plan_comparison, plan_training
from mdprop_ext.recipes import RECIPES, AttackSetting, grid_settings
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
    app.command("attack")(attack)
    app.command("compare")(compare)
    app.command("report")(report)
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
    """Train a model by a recipe; writes checkpoint, log, metrics, plots and a report."""
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
            described = {"recipe": plan.name, "seed": plan.recipe.seed, "data": plan.source.describe()}
            finish_results(out, "train", described)
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
    """Measure a trained model, clean and under attack; writes metrics, a plot and a report."""
    radii = _listed("eps", eps, float)
    if not all(0 <= radius <= 255 for radius in radii):
        raise ValueError(f"eps: expected radii from 0 to 255, in 1/255, got {eps!r}")
    grid = grid_settings(_listed("attacks", attacks, str), radii, _listed("steps", steps, int))
    check_seed(seed or 0)
    source = _other_images(data, train_path, test_path, image_size, channels)
    with RunProgress("eval") as progress:
        metrics = evaluate_checkpoint(
            checkpoint, out, grid, source=source, seed=seed, device=device, observe=progress.observe_evaluation
        )
    write_plots(out, {metrics["recipe"]: metrics})
    arguments = {"checkpoint": str(checkpoint), "attacks": attacks, "eps in 1/255": eps, "steps": steps}
    described = {} if source is None else source.describe()
    finish_results(out, "eval", {**arguments, "seed": metrics["seed"], "data": described})
    _print_summary(metrics, out)


def attack(
    checkpoint: Annotated[Path, typer.Option(help="Folder that 'mdprop train' wrote.", metavar="DIR")],
    out: Annotated[Path, _OUT],
    data: Annotated[
        str | None, typer.Option(help="Attack these images, not the test images of training.", metavar="NAME")
    ] = None,
    train_path: Annotated[str | None, _TRAIN] = None,
    test_path: Annotated[str | None, _TEST] = None,
    image_size: Annotated[int | None, _IMAGE_SIZE] = None,
    channels: Annotated[int | None, _CHANNELS] = None,
    attacks: Annotated[str, typer.Option(help="Of st, mt2, mt5, ... and pgd.")] = "st,mt5,pgd",
    eps: Annotated[float, typer.Option(help="Radius in 1/255.")] = 16.0,
    steps: Annotated[int, typer.Option(help="Number of gradient steps.")] = 5,
    branch: Annotated[str, typer.Option(help="Batch norm branch to attack through.", metavar="NAME")] = "main",
    count: Annotated[int | None, typer.Option(help="Images to attack, spread over classes; by default all.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the attacks; by default that of training.")] = None,
    device: Annotated[str, _DEVICE] = "auto",
    embedding_map: Annotated[str, typer.Option("--map", help="pca, or tsne, which needs scikit-learn.")] = "pca",
) -> None:
    """Write attacked images, what they do to retrieval, pictures of both and a report."""
    source = _other_images(data, train_path, test_path, image_size, channels)
    if embedding_map not in ("pca", "tsne"):
        raise ValueError(f"map: expected pca or tsne, got {embedding_map!r}")
    if not 0 <= eps <= 255:
        raise ValueError(f"eps: expected a radius from 0 to 255, in 1/255, got {eps:g}")
    names = list(dict.fromkeys(_listed("attacks", attacks, str)))
    settings = [AttackSetting(attack=name, eps=eps / 255, steps=steps, branch=branch) for name in names]
    check_seed(seed or 0)
    with RunProgress("attack") as progress:
        outcome = attack_checkpoint(
            checkpoint,
            out,
            settings,
            source=source,
            count=count,
            seed=seed,
            device=device,
            observe=progress.observe_evaluation,
        )
    write_attack_plots(out, outcome, method="tsne" if embedding_map == "tsne" else "pca")
    finish_results(out, "attack", {key: outcome.summary[key] for key in ("checkpoint", "data", "seed")})
    _print_recalls(outcome.summary["recipe"], outcome.summary["clean"], outcome.summary["attacks"], out)


def report(folder: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="DIR")]) -> None:
    """Make the report of a run again from its files."""
    sys.stdout.write(f"{remake_report(folder)}\n")


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
    """Train several recipes on the same images; writes all runs, a table, plots and a report."""
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


def _other_images(
    data: str | None, train_path: str | None, test_path: str | None, image_size: int | None, channels: int | None
) -> DataSource | None:
    """The images that a command names in place of those of training; None where it names none."""
    if data is None and (train_path or test_path):
        raise ValueError("data: expected one of digits, omniglot, folder beside --train and --test, got none")
    return None if data is None else DataSource(data, train_path, test_path, image_size, channels)


def _print_summary(metrics: dict[str, Any], out: Path) -> None:
    _print_recalls(metrics["recipe"], metrics["test"], metrics["robust"], out)


def _print_recalls(recipe: str, clean: dict[str, Any], attacks: dict[str, dict[str, Any]], out: Path) -> None:
    attacked = ", ".join(f"{name} {100 * each['recall_at_1']:.1f} %" for name, each in attacks.items())
    recall = 100 * clean["recall_at_1"]
    sys.stdout.write(f"{recipe}: R@1 {recall:.1f} % clean; attacked: {attacked}; results in {out}\n")


def _listed(name: str, text: str, read: Callable[[str], Any]) -> list[Any]:
    try:
        values = [read(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError:
        values = []
    if not values:
        raise ValueError(f"{name}: expected values separated by commas, got {text!r}")
    return values
