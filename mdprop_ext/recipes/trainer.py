"""The training loop that all recipes share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mdprop_ext.data import ClassBatchSampler, ImageSet, Splits
from mdprop_ext.recipes._interrupts import interrupts_put_off
from mdprop_ext.recipes._state import StateTree
from mdprop_ext.recipes.base import Recipe
from mdprop_ext.recipes.device import resolve_device
from mdprop_ext.recipes.train_config import TrainConfig
from mdprop_ext.recipes.training import Training

#: One line of the log: ``step``, ``steps``, what the recipe's step returned, ``learning_rate``, where the validation
#: split was measured ``val_recall_at_1``, ``val_map_at_r`` and ``best_val_recall_at_1``, and ``seconds``.
Record = dict[str, float]


@dataclass(frozen=True, repr=False)
class TrainOutcome:
    """What a training run leaves.

    Args:
        model: The model that did best on the validation split; the current one if interrupted.
        step: The step of these weights.
        seconds: Time of the loop, validation included.
        interrupted: Whether Ctrl-C ended the run.
    """

    model: nn.Module
    step: int
    seconds: float
    interrupted: bool

    def __repr__(self) -> str:
        state = ", interrupted" if self.interrupted else ""
        return f"TrainOutcome({type(self.model).__name__}, step={self.step}, seconds={self.seconds:.1f}{state})"


def train(
    recipe: Recipe[Any],
    splits: Splits,
    config: TrainConfig,
    *,
    device: str = "auto",
    observe: Callable[[Record], None] | None = None,
    save: Callable[[StateTree], None] | None = None,
    state: StateTree | None = None,
) -> TrainOutcome:
    """Trains a model, from new weights or on from a saved state.

    Adam on batches of several images a class. Every ``config.validate_every`` steps and at the end the validation
    split, whose classes are not trained on, is measured; the weights of the highest R@1 are kept, of equal ones those
    of the higher mAP@R. The test split is not looked at. All randomness derives from ``recipe.seed``; the global random
    state is left as it was. Ctrl-C ends the run after the step that is running, with the model as it is then. In
    several processes of ``torch.distributed`` each trains on its part of every batch; all end with the same model.

    Args:
        recipe: How to train; :meth:`Recipe.prepare` is called here.
        splits: Images, of which ``train`` and ``val`` are used.
        config: Model, optimiser and length.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``; batches are moved there one by one.
        observe: Called after every step with its record.
        save: Called after the first step, every ``config.checkpoint_every`` steps and at the end, with a state that is
            valid until it returns. To be given in all processes or in none.
        state: What ``save`` was given in a run of the same arguments: the rest of that run is then done again, bit for
            bit.

    Returns:
        The model and how it came about.

    Raises:
        ValueError: If the data does not suit the model or the recipe, or the loss is not finite.
    """
    place = resolve_device(device)
    classes, per_class = config.batch_shape(len(splits.train.classes))
    sampler = ClassBatchSampler(splits.train.labels, classes, per_class, seed=recipe.seed)
    steps = config.optimizer_steps(len(sampler))
    with _seeded(recipe.seed, place):
        training = Training(recipe, splits.train, config, place)
        if state is not None:
            training.load_state_dict(state)
        batches = _batches(sampler, skip=training.step * config.accumulate)
        finished, saved_step = _is_finished(training, steps), training.step
        try:
            while not finished:
                with interrupts_put_off():
                    record = _advance(training, batches, steps, splits.val)
                    if observe is not None:
                        observe(record)
                    finished = _is_finished(training, steps)
                    due = training.step == 1 or training.step % config.checkpoint_every == 0 or finished
                    if save is not None and due:
                        save(training.state_dict())
                        saved_step = training.step
        except KeyboardInterrupt:
            # Other processes may be in the next step already: then the last state that all of them saved remains.
            if save is not None and training.step > saved_step and sampler.world_size == 1:
                save(training.state_dict())
            return TrainOutcome(training.model, training.step, training.seconds, interrupted=True)
    training.model.load_state_dict(training.best.weights)
    return TrainOutcome(training.model, training.best.step, training.seconds, interrupted=False)


def _advance(training: Training, batches: Iterator[list[int]], steps: int, validation: ImageSet) -> Record:
    """Makes one step, measures the validation split if it is time, and returns the record."""
    config = training.config
    learning_rate = config.learning_rate_at(training.step + 1, steps)
    logs = training.update([training.load_batch(next(batches)) for _ in range(config.accumulate)], learning_rate)
    step = training.step
    if not math.isfinite(logs["loss"]):
        raise ValueError(f"the loss is {logs['loss']} at step {step}: try a lower learning_rate")
    measured = training.validate(validation) if step % config.validate_every == 0 or step == steps else {}
    seconds = training.seconds
    return {"step": step, "steps": steps, **logs, "learning_rate": learning_rate, **measured, "seconds": seconds}


def _is_finished(training: Training, steps: int) -> bool:
    patience = training.config.patience
    return training.step >= steps or (patience is not None and training.best.waiting >= patience)


def _batches(sampler: ClassBatchSampler, *, skip: int) -> Iterator[list[int]]:
    """Yields batches of epoch after epoch, without the first ``skip``."""
    first, start = divmod(skip, len(sampler))
    for epoch in itertools.count(first):
        sampler.set_epoch(epoch, start if epoch == first else 0)
        yield from sampler


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds the global random state inside the block and gives it back after it."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
