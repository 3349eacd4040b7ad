"""A training run between two steps: everything that the next step depends on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mdprop_ext._distributed import rank_and_world_size
from mdprop_ext.data import ImageSet
from mdprop_ext.recipes._best import BestWeights
from mdprop_ext.recipes._state import (
    StateTree,
    module_state,
    optimizer_state,
    restore_module,
    restore_optimizer,
    tree_on_cpu,
)
from mdprop_ext.recipes.base import Batch, Recipe
from mdprop_ext.recipes.criteria import build_criterion
from mdprop_ext.recipes.processes import average_gradients, average_numbers, copy_from_first, gathered
from mdprop_ext.recipes.train_config import TrainConfig

_NAMES_OF_LOG = (
    "step",
    "steps",
    "seconds",
    "learning_rate",
    "val_recall_at_1",
    "val_map_at_r",
    "best_val_recall_at_1",
)


class Training:
    """Model, optimizer, recipe, the best weights so far, the global random state, the step and the time.

    Of several processes each trains on its part of every batch by the mean of their gradients; the loss has the pairs
    within a part unless the criterion is a :class:`~mdprop_ext.losses.GatheredLoss`. The first process measures, and
    all begin a step with its running statistics.

    Args:
        recipe: How to train; gets the criterion of ``config``, and prepares the model.
        images: To train on.
        config: Model and optimiser.
        device: Where to train.
    """

    def __init__(self, recipe: Recipe[Any], images: ImageSet, config: TrainConfig, device: torch.device) -> None:
        self.recipe = recipe
        self.config = config
        self.device = device
        self.step = 0
        self.best = BestWeights()
        if config.criterion is not None:
            recipe.criterion = build_criterion(
                config.criterion, classes=len(images.classes), embedding_dim=config.embedding_dim
            )
        if isinstance(recipe.criterion, nn.Module):
            recipe.criterion.to(device)
        _, channels, height, _ = images.images.shape
        self.model = recipe.prepare(config.build_model(channels, height).to(device))
        self.optimizer = torch.optim.Adam(
            [*self.model.parameters(), *recipe.parameters()], lr=config.learning_rate, weight_decay=config.weight_decay
        )
        copy_from_first(self.model.state_dict().values())
        self._images = images
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time of the run, that before an interruption included."""
        return time.perf_counter() - self._started

    def load_batch(self, indices: list[int]) -> Batch:
        """Brings images and labels to the device."""
        return self._images.floats(indices).to(self.device), self._images.labels[indices].to(self.device)

    def update(self, batches: list[Batch], learning_rate: float) -> dict[str, float]:
        """Makes one optimizer step by the mean loss of the batches, and returns the means of what the recipe logs.

        Raises:
            ValueError: If the recipe's step returns no loss, or a name that the log uses itself.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        copy_from_first(self.model.buffers())
        self.model.train()
        self.optimizer.zero_grad()
        logs: dict[str, float] = {}
        for batch in batches:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.amp == "bf16"):
                values = _checked(self.recipe.step(self.model, batch))
            (values["loss"] / len(batches)).backward()  # type: ignore[no-untyped-call]
            for name, value in values.items():
                logs[name] = logs.get(name, 0.0) + float(value.detach()) / len(batches)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        average_gradients(parameters)
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.config.clip_norm)
        self.optimizer.step()
        self.step += 1
        return average_numbers(logs)

    def validate(self, images: ImageSet) -> dict[str, float]:
        """Measures the model, keeps its weights if they are the best, and returns what to log."""
        copy_from_first(self.model.buffers())
        return self.best.update(self.step, self.model, images)

    def state_dict(self) -> StateTree:
        """Returns everything that the rest of the run depends on; to be called by all processes."""
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        # Parts of a batch may differ in size, and so in how many random numbers they take.
        own = tree_on_cpu({"random": random, "recipe": self.recipe.state_dict()})
        return {
            "step": self.step,
            "seconds": self.seconds,
            "model": module_state(self.model),
            "optimizer": optimizer_state(self.optimizer),
            "best": self.best.state_dict(),
            "processes": gathered(own),
        }

    def load_state_dict(self, state: StateTree) -> None:
        """Goes back to where :meth:`state_dict` was called."""
        restore_module(self.model, state["model"])
        restore_optimizer(self.optimizer, state["optimizer"])
        own = state["processes"][rank_and_world_size()[0]]
        self.recipe.load_state_dict(own["recipe"], self.device)
        self.best.load_state_dict(state["best"])
        self.step = state["step"]
        self._started = time.perf_counter() - state["seconds"]
        torch.set_rng_state(own["random"]["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(own["random"]["cuda"], self.device)


def _checked(values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if "loss" not in values:
        raise ValueError(f"recipe: expected its step to return 'loss', got {', '.join(values) or 'nothing'}")
    taken = [name for name in values if name in _NAMES_OF_LOG]
    if taken:
        raise ValueError(f"recipe: expected its step to return other names than the log has, got {', '.join(taken)}")
    return values
