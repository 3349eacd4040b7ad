"""The commands and their options."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mdprop_ext._arguments import check_choice, check_seed
from mdprop_ext._files import check_output_folder
from mdprop_ext.cli import options
from mdprop_ext.cli.attack import attack_checkpoint
from mdprop_ext.cli.compare import compare_recipes
from mdprop_ext.cli.data_source import DataSource
from mdprop_ext.cli.evaluate import evaluate_checkpoint
from mdprop_ext.cli.forward import run_benchmarks, run_module_main
from mdprop_ext.cli.plots import write_attack_plots, write_plots
from mdprop_ext.cli.progress import RunProgress
from mdprop_ext.cli.reports import finish_results, remake_report
from mdprop_ext.cli.summary import print_attacks, print_grid, print_training
from mdprop_ext.cli.train import run_plan
from mdprop_ext.cli.training_plan import TrainingOptions, plan_comparison, plan_training
from mdprop_ext.cli.values import listed, read_radius
from mdprop_ext.recipes import RECIPES, AttackSetting, grid_settings
from mdprop_ext.recipes.processes import is_first_process, joined_processes

# Options of these commands are read by the modules that they go to.
_FORWARDED: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def build_app() -> typer.Typer:
    """Returns the application with all commands."""
    app = typer.Typer(
        cls=options.CommandGroup,
        help="Trains and attacks metric learning on mixtures of distributions.",
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.command("train", cls=options.Command)(train)
    app.command("eval", cls=options.Command)(evaluate)
    app.command("attack", cls=options.Command)(attack)
    app.command("compare", cls=options.Command)(compare)
    app.command("report", cls=options.Command)(report)
    app.command("recipes", cls=options.Command)(recipes)
    app.command("info", cls=options.Command, context_settings=_FORWARDED)(info)
    app.command("selftest", cls=options.Command, context_settings=_FORWARDED)(selftest)
    app.command("bench", cls=options.Command, context_settings=_FORWARDED)(bench)
    return app


def train(
    context: typer.Context,
    out: Annotated[Path, options.OUT],
    recipe: Annotated[str | None, options.RECIPE] = None,
    data: Annotated[str | None, options.DATA] = None,
    train_path: Annotated[str | None, options.TRAIN] = None,
    test_path: Annotated[str | None, options.TEST] = None,
    image_size: Annotated[int | None, options.IMAGE_SIZE] = None,
    channels: Annotated[int | None, options.CHANNELS] = None,
    config: Annotated[Path | None, options.CONFIG] = None,
    settings: Annotated[list[str] | None, options.SET] = None,
    epochs: Annotated[int | None, options.EPOCHS] = None,
    seed: Annotated[int | None, typer.Option(help="Of all random numbers, at least 0.")] = None,
    device: Annotated[str, options.DEVICE] = "auto",
    resume: Annotated[bool, options.RESUME] = False,
    tensorboard: Annotated[bool, options.TENSORBOARD] = False,
) -> None:
    """Train a model by a recipe; writes checkpoint, log, metrics, plots and a report."""
    asked = TrainingOptions(
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
        command_options=options.option_names(context),
    )
    check_output_folder(out)
    plan = plan_training(asked, out, resume=resume)
    with joined_processes(device):
        result = run_plan(plan, out, device=device, resume=resume, tensorboard=tensorboard)
        if is_first_process():
            write_plots(out, {plan.name: result.metrics}, {plan.name: result.history})
            decided = {"recipe": plan.name, "seed": plan.recipe.seed, **plan.source.arguments()}
            finish_results(out, "train", options.given_arguments(context, **decided))
            print_training(result.metrics, out)


def evaluate(
    context: typer.Context,
    checkpoint: Annotated[Path, options.CHECKPOINT],
    out: Annotated[Path, options.OUT],
    data: Annotated[str | None, options.OTHER_DATA] = None,
    train_path: Annotated[str | None, options.TRAIN] = None,
    test_path: Annotated[str | None, options.TEST] = None,
    image_size: Annotated[int | None, options.IMAGE_SIZE] = None,
    channels: Annotated[int | None, options.CHANNELS] = None,
    attacks: Annotated[str, options.ATTACKS] = "st,mt2,mt5",
    eps: Annotated[str, typer.Option(help="Radii in 1/255: 8 and 8/255 are the same.", metavar="E,...")] = "4,8,16",
    steps: Annotated[str, typer.Option(help="Numbers of gradient steps.", metavar="N,...")] = "1,5",
    seed: Annotated[int | None, options.ATTACK_SEED] = None,
    device: Annotated[str, options.DEVICE] = "auto",
) -> None:
    """Measure a trained model, clean and under attack; writes metrics, a plot and a report."""
    radii = listed("eps", eps, read_radius)
    grid = grid_settings(listed("attacks", attacks, str), radii, listed("steps", steps, int))
    check_seed(seed or 0)
    source = _other_images(data, train_path, test_path, image_size, channels)
    with RunProgress("eval") as progress:
        metrics = evaluate_checkpoint(
            checkpoint, out, grid, source=source, seed=seed, device=device, observe=progress.observe_evaluation
        )
    write_plots(out, {metrics["recipe"]: metrics})
    finish_results(out, "eval", options.given_arguments(context, seed=metrics["seed"]))
    print_grid(metrics, out)


def attack(
    context: typer.Context,
    checkpoint: Annotated[Path, options.CHECKPOINT],
    out: Annotated[Path, options.OUT],
    data: Annotated[str | None, options.OTHER_DATA] = None,
    train_path: Annotated[str | None, options.TRAIN] = None,
    test_path: Annotated[str | None, options.TEST] = None,
    image_size: Annotated[int | None, options.IMAGE_SIZE] = None,
    channels: Annotated[int | None, options.CHANNELS] = None,
    attacks: Annotated[str, options.ATTACKS] = "st,mt5,pgd",
    eps: Annotated[str, typer.Option(help="Radius in 1/255: 8 and 8/255 are the same.", metavar="E")] = "16",
    steps: Annotated[int, typer.Option(help="Number of gradient steps.")] = 5,
    branch: Annotated[str, typer.Option(help="Batch norm branch to attack through.", metavar="NAME")] = "main",
    count: Annotated[int | None, typer.Option(help="Images to attack, spread over classes; by default all.")] = None,
    seed: Annotated[int | None, options.ATTACK_SEED] = None,
    device: Annotated[str, options.DEVICE] = "auto",
    embedding_map: Annotated[str, typer.Option("--map", help="pca, or tsne, which needs scikit-learn.")] = "pca",
) -> None:
    """Write attacked images, what they do to retrieval, pictures of both and a report."""
    source = _other_images(data, train_path, test_path, image_size, channels)
    check_choice("map", embedding_map, ("pca", "tsne"))
    radius = read_radius(eps)
    names = list(dict.fromkeys(listed("attacks", attacks, str)))
    settings = [AttackSetting(attack=name, eps=radius / 255, steps=steps, branch=branch) for name in names]
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
    summary = outcome.summary
    data_arguments = DataSource.described(summary["data"]).arguments()
    finish_results(out, "attack", options.given_arguments(context, seed=summary["seed"], **data_arguments))
    print_attacks(summary, summary["clean"], summary["attacks"], radius, steps, out)


def report(folder: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="DIR")]) -> None:
    """Make the report of a run again from its files."""
    sys.stdout.write(f"{remake_report(folder)}\n")


def compare(
    context: typer.Context,
    out: Annotated[Path, options.OUT],
    data: Annotated[str | None, options.DATA] = None,
    names: Annotated[
        str, typer.Option("--recipes", help="The first one is what the others are compared with.")
    ] = "plain,mdprop",
    train_path: Annotated[str | None, options.TRAIN] = None,
    test_path: Annotated[str | None, options.TEST] = None,
    image_size: Annotated[int | None, options.IMAGE_SIZE] = None,
    channels: Annotated[int | None, options.CHANNELS] = None,
    config: Annotated[Path | None, options.CONFIG] = None,
    settings: Annotated[list[str] | None, options.SET] = None,
    epochs: Annotated[int | None, options.EPOCHS] = None,
    seeds: Annotated[int, typer.Option(help="Number of runs of each recipe, with seeds 0, 1, ...")] = 1,
    device: Annotated[str, options.DEVICE] = "auto",
    resume: Annotated[bool, options.RESUME_ALL] = False,
) -> None:
    """Train several recipes on the same images; writes all runs, a table, plots and a report."""
    asked = TrainingOptions(
        data=data,
        train=train_path,
        test=test_path,
        image_size=image_size,
        channels=channels,
        config=config,
        settings=settings or (),
        epochs=epochs,
        command_options=options.option_names(context),
    )
    check_output_folder(out)
    plans = plan_comparison(asked, listed("recipes", names, str), seeds=seeds)
    with joined_processes(device):
        arguments = options.given_arguments(context, **plans[0].source.arguments())
        compare_recipes(plans, out, arguments=arguments, device=device, resume=resume)


def recipes(
    as_json: Annotated[
        bool, typer.Option("--json", help="For machines, with hyper-parameters.", metavar=options.FLAG)
    ] = False,
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
