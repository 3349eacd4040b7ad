"""The work of ``mdprop train``."""

from __future__ import annotations

import sys
from pathlib import Path

from mdprop_ext.cli.interrupts import listen_to_interrupts
from mdprop_ext.cli.progress import RunProgress
from mdprop_ext.cli.training_plan import TrainingPlan
from mdprop_ext.data import Splits
from mdprop_ext.recipes import RunResult, run_training
from mdprop_ext.recipes.processes import is_first_process
from mdprop_ext.recipes.run import is_finished


def run_plan(
    plan: TrainingPlan,
    out: Path,
    *,
    title: str | None = None,
    splits: Splits | None = None,
    device: str = "auto",
    resume: bool = False,
    tensorboard: bool = False,
) -> RunResult:
    """Trains and measures a model with progress on the terminal.

    Args:
        plan: What to train.
        out: Folder for the results.
        title: What is running; by default the recipe.
        splits: The images of the plan, where they are loaded already.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        resume: Whether to go on with the run in ``out``.
        tensorboard: Whether to write event files too.

    Returns:
        Metrics and history.

    Raises:
        RunInterrupted: After Ctrl-C.
        ValueError: If the data does not suit, or the run in ``out`` is another one.
    """
    listen_to_interrupts()
    was_finished = resume and is_finished(out)
    with RunProgress(title or plan.name) as progress:
        result = run_training(
            plan.recipe,
            plan.source.load(plan.recipe.seed) if splits is None else splits,
            plan.config,
            out,
            data=plan.source.describe(),
            device=device,
            resume=resume,
            tensorboard=tensorboard,
            observe=progress.observe,
            observe_evaluation=progress.observe_evaluation,
        )
    if was_finished and is_first_process():
        sys.stdout.write(f"the run in {out} is finished, there is nothing to do\n")
    return result
