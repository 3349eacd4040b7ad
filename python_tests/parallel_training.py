"""Trains in one of several processes, which the environment tells of, and writes what this one ends with."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from recipe_cases import InterruptedPlain, small_splits
from torch import Tensor, nn

from mdprop_ext.cli import main as run_command
from mdprop_ext.losses import GatheredLoss, MultiSimilarityLoss
from mdprop_ext.recipes import Batch, MDProp, Plain, RunInterrupted, TrainConfig, run_training, train
from mdprop_ext.recipes._state import StateTree, tree_on_cpu
from mdprop_ext.recipes.processes import average_gradients, done_by_first, gathered, joined_processes
from mdprop_ext.recipes.trainer import Record

CONFIG = TrainConfig(
    model="own_parts:make_model",
    criterion="own_parts:Proxies",
    embedding_dim=8,
    steps=4,
    classes_per_batch=5,
    images_per_class=3,  # fifteen images for two processes
    validate_every=2,
    checkpoint_every=2,
)


def digest(tensors: Mapping[str, Tensor]) -> str:
    content = hashlib.blake2b()
    for tensor in tensors.values():
        content.update(tensor.contiguous().numpy().tobytes())
    return content.hexdigest()


def joined_losses() -> list[float]:
    """Losses of a network without batch norm, which does not tell parts of a batch from the whole."""
    config = TrainConfig(model="own_parts:make_linear", embedding_dim=8, steps=4, classes_per_batch=4)
    losses: list[float] = []
    recipe = Plain(criterion=GatheredLoss(MultiSimilarityLoss()))
    train(recipe, small_splits(), config, device="cpu", observe=lambda record: losses.append(record["loss"]))
    return losses


class Watched(MDProp):
    """Keeps what the running statistics are when a step begins."""

    def __init__(self, seen: list[str], *, seed: int) -> None:
        super().__init__(seed=seed)
        self._see = seen.append

    def step(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        self._see(digest(dict(model.named_buffers())))
        return super().step(model, batch)


def averaged_gradients(rank: int) -> list[list[float]]:
    """Means of a gradient that both processes have and of one that the second lacks; Adam would not see their scale."""
    both, one = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    both.grad = torch.tensor([1.0, 2.0]) + rank
    one.grad = None if rank else torch.tensor([4.0, 8.0])
    average_gradients([both, one])
    return [gradient.tolist() for gradient in (both.grad, one.grad) if gradient is not None]


def interrupted_steps() -> list[int]:
    """The steps at which a run that Ctrl-C ends after the third one saves its state."""
    steps: list[int] = []

    def interrupt(record: Record) -> None:
        if record["step"] == 3:
            raise KeyboardInterrupt

    train(
        Plain(),
        small_splits(),
        CONFIG,
        device="cpu",
        observe=interrupt,
        save=lambda state: steps.append(state["step"]),
    )
    return steps


def interrupted_run(out: Path) -> str:
    """What this process says of a run that Ctrl-C ends in all of them."""
    try:
        run_training(InterruptedPlain(at=3), small_splits(), CONFIG, out, device="cpu")
    except RunInterrupted as interrupted:
        return str(interrupted)
    return "finished"


def ends_alike(out: Path) -> dict[str, Any]:
    states: list[StateTree] = []

    def keep(state: StateTree) -> None:
        states.append(tree_on_cpu(state))

    statistics: list[str] = []
    outcome = train(Watched(statistics, seed=1), small_splits(), CONFIG, device="cpu", save=keep)
    # As from the file, which the first process wrote.
    state = done_by_first(lambda: states[1])
    resumed = train(MDProp(seed=1), small_splits(), CONFIG, device="cpu", state=state)
    written = run_training(MDProp(seed=1), small_splits(), CONFIG, out, device="cpu")
    losses = joined_losses()
    interrupted = interrupted_steps()
    return {
        "weights": digest(outcome.model.state_dict()),
        "resumed": digest(resumed.model.state_dict()),
        "metrics": written.metrics,
        "statistics": statistics,
        "gradients": averaged_gradients(int(os.environ["RANK"])),
        "steps_of_interrupted": interrupted,
        "steps": [state["step"] for state in states],
        "losses": losses,
    }


def main(folder: Path, arguments: list[str]) -> None:
    """Also runs a command; joined once, since a second group of the same job may find addresses of the first."""
    with joined_processes("cpu"):
        outcome = ends_alike(folder / "two")
        outcome["interrupted"] = gathered(interrupted_run(folder / "interrupted"))
        outcome["status"] = run_command(arguments)
    names = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
    # Of the group, which would still run while the process ends.
    outcome["threads"] = [name for name in names if "gloo" in name]
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(outcome))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2:])
