"""The training loop that all recipes share."""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mdprop_ext.data import ClassBatchSampler, ImageSet, Splits
from mdprop_ext.metrics import retrieval_metrics
from mdprop_ext.recipes.base import Batch, Recipe
from mdprop_ext.recipes.evaluation import embed
from mdprop_ext.recipes.train_config import TrainConfig

#: One line of the log: ``step``, ``steps``, ``seconds``, what the recipe's step returned and, where the validation
#: split was measured, ``val_recall_at_1``, ``val_map_at_r`` and ``best_val_recall_at_1``.
Record = dict[str, float]


@dataclass(frozen=True)
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


def train(
    recipe: Recipe[Any],
    splits: Splits,
    config: TrainConfig,
    *,
    observe: Callable[[Record], None] | None = None,
) -> TrainOutcome:
    """Trains a model from new weights.

    Adam on batches of several images a class. Every ``config.validate_every`` steps and at the end the validation
    split, whose classes are not trained on, is measured; the weights of the highest R@1 are kept, of equal ones those
    of the higher mAP@R. The test split is not looked at. All randomness derives from ``recipe.seed``; the global random
    state is left as it was. Ctrl-C ends the run with the model as it is then.

    Args:
        recipe: How to train; :meth:`Recipe.prepare` is called here.
        splits: Images, of which ``train`` and ``val`` are used.
        config: Model, optimiser and length.
        observe: Called after every step with its record.

    Returns:
        The model and how it came about.

    Raises:
        ValueError: If the data does not suit the model or the recipe, or the loss is not finite.
    """
    images = splits.train
    classes, per_class = config.batch_shape(len(images.classes))
    sampler = ClassBatchSampler(images.labels, classes, per_class, seed=recipe.seed)
    steps = config.steps if config.epochs is None else config.epochs * len(sampler)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = recipe.prepare(config.build_model(images.images.shape[1], images.images.shape[2]))
        optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        best, done, start = _Best(), 0, time.perf_counter()
        try:
            for step, indices in enumerate(_batches(sampler, steps), start=1):
                batch = (images.floats(indices), images.labels[indices])
                logs = _update(model, optimizer, recipe, batch, config.learning_rate_at(step, steps))
                done = step
                if not math.isfinite(logs["loss"]):
                    raise ValueError(f"the loss is {logs['loss']} at step {step}: try a lower learning_rate")
                if step % config.validate_every == 0 or step == steps:
                    logs |= best.update(step, model, splits.val)
                if observe is not None:
                    observe({"step": step, "steps": steps, **logs, "seconds": time.perf_counter() - start})
        except KeyboardInterrupt:
            return TrainOutcome(model, done, time.perf_counter() - start, interrupted=True)
    model.load_state_dict(best.state)
    return TrainOutcome(model, best.step, time.perf_counter() - start, interrupted=False)


def _update(
    model: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe[Any], batch: Batch, learning_rate: float
) -> Record:
    """Makes one optimizer step and returns what the recipe logs."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    model.train()
    logs = recipe.step(model, batch)
    optimizer.zero_grad()
    logs["loss"].backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return {name: float(value.detach()) for name, value in logs.items()}


def _batches(sampler: ClassBatchSampler, steps: int) -> Iterator[list[int]]:
    """Yields ``steps`` batches, from as many epochs as that takes."""
    left = steps
    for epoch in itertools.count():
        sampler.set_epoch(epoch)
        for indices in itertools.islice(sampler, left):
            yield indices
            left -= 1
        if left == 0:
            return


class _Best:
    """The weights that did best on validation images so far."""

    def __init__(self) -> None:
        self.step = 0
        self.state: dict[str, Tensor] = {}
        self._score = (-math.inf, -math.inf)

    def update(self, step: int, model: nn.Module, validation: ImageSet) -> Record:
        """Measures a model, keeps its weights if they are the best, and returns what to log."""
        metrics = retrieval_metrics(embed(model, validation), validation.labels, ks=(1,))
        # On few classes R@1 is soon the same for many steps, and mAP@R still tells them apart.
        score = metrics["recall_at_1"], metrics["map_at_r"]
        if score > self._score:
            self.step, self._score, self.state = step, score, copy.deepcopy(model.state_dict())
        return {"val_recall_at_1": score[0], "val_map_at_r": score[1], "best_val_recall_at_1": self._score[0]}
