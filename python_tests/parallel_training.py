"""Trains in one of several processes, which the environment tells of, and writes what this one ends with."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from recipe_cases import small_splits
from torch import nn

from mdprop_ext.cli import main as run_command
from mdprop_ext.losses import GatheredLoss, MultiSimilarityLoss
from mdprop_ext.recipes import MDProp, Plain, TrainConfig, run_training, train
from mdprop_ext.recipes._state import StateTree, tree_on_cpu
from mdprop_ext.recipes.processes import done_by_first, joined_processes

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


def digest(model: nn.Module) -> str:
    content = hashlib.blake2b()
    for tensor in model.state_dict().values():
        content.update(tensor.contiguous().numpy().tobytes())
    return content.hexdigest()


def joined_losses() -> list[float]:
    """Losses of a network without batch norm, which does not tell parts of a batch from the whole."""
    config = TrainConfig(model="own_parts:make_linear", embedding_dim=8, steps=4, classes_per_batch=4)
    losses: list[float] = []
    recipe = Plain(criterion=GatheredLoss(MultiSimilarityLoss()))
    train(recipe, small_splits(), config, device="cpu", observe=lambda record: losses.append(record["loss"]))
    return losses


def ends_alike(out: Path) -> dict[str, Any]:
    with joined_processes("cpu"):
        states: list[StateTree] = []

        def keep(state: StateTree) -> None:
            states.append(tree_on_cpu(state))

        outcome = train(MDProp(seed=1), small_splits(), CONFIG, device="cpu", save=keep)
        # As from the file, which the first process wrote.
        state = done_by_first(lambda: states[1])
        resumed = train(MDProp(seed=1), small_splits(), CONFIG, device="cpu", state=state)
        written = run_training(MDProp(seed=1), small_splits(), CONFIG, out, device="cpu")
        losses = joined_losses()
    return {
        "weights": digest(outcome.model),
        "resumed": digest(resumed.model),
        "metrics": written.metrics,
        "steps": [state["step"] for state in states],
        "losses": losses,
    }


def main(folder: Path, arguments: list[str]) -> None:
    """Also runs a command; joined once, since a second group of the same job may find addresses of the first."""
    with joined_processes("cpu"):
        outcome = ends_alike(folder / "two")
        outcome["status"] = run_command(arguments)
    names = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
    # Of the group, which would still run while the process ends.
    outcome["threads"] = [name for name in names if "gloo" in name]
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(outcome))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2:])
