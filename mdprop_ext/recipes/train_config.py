"""How a model is trained, whatever the recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from mdprop_ext._arguments import check_choice, check_integer, check_number
from mdprop_ext._words import did_you_mean
from mdprop_ext.losses import LOSS_NAMES
from mdprop_ext.nn.backbones import conv4, resnet18, resnet50
from mdprop_ext.nn.backbones.conv4 import SMALLEST_IMAGE
from mdprop_ext.recipes.user_objects import build_user_model, is_user_object

MODELS = ("conv4", "resnet18", "resnet50")
Schedule = Literal["constant", "linear"]
Precision = Literal["none", "bf16"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Model, optimiser and length of a training run; the same for all recipes, so that they compare.

    Args:
        model: ``"conv4"``, ``"resnet18"`` or ``"resnet50"``; the latter two take images above 64 pixels by the stem for
            large images, others by that for small ones. Or ``"module:factory"``, see
            :func:`~mdprop_ext.recipes.user_objects.build_user_model`.
        embedding_dim: Numbers in an embedding, at least 1.
        criterion: The loss of embeddings in place of the recipe's: a name of
            :func:`~mdprop_ext.losses.loss_by_name`, or ``"module:factory"`` whose
            ``factory(classes=..., embedding_dim=...)`` gives ``criterion(embeddings, labels) -> scalar``. What it
            learns is trained with the model. None: the recipe's own.
        learning_rate: Of Adam, above 0.
        schedule: ``"constant"``, or ``"linear"`` decay of the learning rate to 0 over the run.
        weight_decay: Of Adam, at least 0.
        clip_norm: Largest norm of the gradient of all parameters, above 0; a longer one is scaled down. None: no limit.
        steps: Optimizer steps, at least 1.
        epochs: Passes of the batch sampler instead of ``steps``, at least 1.
        classes_per_batch: Classes in a batch, at least 2. Where training has fewer, a batch holds all of them.
        images_per_class: Images of each class in a batch, at least 2. Where training has fewer classes than asked for,
            it is raised to keep the size of the batch.
        accumulate: Batches in an optimizer step, at least 1; the loss of a step is the mean of theirs. Pairs are made
            within a batch only, so this is not the loss of one batch as large as all of them.
        amp: ``"bf16"``: training steps, attacks included, run under autocast to bfloat16; ``"none"``: in float32.
        validate_every: Steps between two measurements of the validation split, at least 1.
        patience: Training ends after this many measurements without a new best one, at least 1. None: never early.
        checkpoint_every: Steps between two states to resume from, at least 1.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a value is out of range.
    """

    model: str = "conv4"
    embedding_dim: int = 64
    criterion: str | None = None
    learning_rate: float = 1e-3
    schedule: Schedule = "constant"
    weight_decay: float = 0.0
    clip_norm: float | None = None
    steps: int = 300
    epochs: int | None = None
    classes_per_batch: int = 32
    images_per_class: int = 2
    accumulate: int = 1
    amp: Precision = "none"
    validate_every: int = 50
    patience: int | None = None
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        if self.model not in MODELS and not is_user_object(self.model):
            raise ValueError(f"model: expected one of {', '.join(MODELS)} or module:factory, got {self.model!r}")
        if self.criterion is not None and not is_user_object(self.criterion) and self.criterion not in LOSS_NAMES:
            raise ValueError(
                f"criterion: expected one of {', '.join(LOSS_NAMES)} or module:factory, got {self.criterion!r}"
                f"{did_you_mean(self.criterion, LOSS_NAMES)}"
            )
        check_choice("schedule", self.schedule, get_args(Schedule))
        check_choice("amp", self.amp, get_args(Precision))
        for name in ("embedding_dim", "steps", "accumulate", "validate_every", "checkpoint_every"):
            check_integer(name, getattr(self, name), least=1)
        for name in ("classes_per_batch", "images_per_class"):
            check_integer(name, getattr(self, name), least=2)
        for name in ("epochs", "patience"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), least=1)
        check_number("weight_decay", self.weight_decay, least=0)
        _check_positive("learning_rate", self.learning_rate)
        if self.clip_norm is not None:
            _check_positive("clip_norm", self.clip_norm)

    def batch_shape(self, available_classes: int) -> tuple[int, int]:
        """Fits a batch to the data.

        Args:
            available_classes: Number of training classes, at least 1.

        Returns:
            Classes in a batch and images of each.
        """
        classes = min(self.classes_per_batch, available_classes)
        filling = round(self.classes_per_batch * self.images_per_class / classes)
        return classes, max(self.images_per_class, filling)

    def optimizer_steps(self, batches_per_epoch: int) -> int:
        """Returns the steps of a run whose sampler has ``batches_per_epoch`` batches in a pass."""
        return self.steps if self.epochs is None else -(-self.epochs * batches_per_epoch // self.accumulate)

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Returns the learning rate of a step, which counts from 1 to ``steps``."""
        return self.learning_rate * (1 - (step - 1) / steps if self.schedule == "linear" else 1)

    def build_model(self, in_channels: int, image_size: int) -> nn.Module:
        """Builds the network with new weights from the global random state.

        Args:
            in_channels: Channels of the images.
            image_size: Their height and width.

        Returns:
            A module from ``[N, in_channels, H, W]`` to embeddings ``[N, embedding_dim]``, of unit norm unless the model
            is the user's own.

        Raises:
            ValueError: If the images are too small for it, or the user's own model cannot be built.
        """
        model: nn.Module
        if self.model == "conv4" and image_size < SMALLEST_IMAGE:
            raise ValueError(f"image_size: expected at least {SMALLEST_IMAGE} pixels for model conv4, got {image_size}")
        if is_user_object(self.model):
            model = build_user_model(
                self.model, in_channels=in_channels, embedding_dim=self.embedding_dim, image_size=image_size
            )
        elif self.model == "conv4":
            model = conv4(in_channels=in_channels, embedding_dim=self.embedding_dim)
        else:
            resnet = resnet18 if self.model == "resnet18" else resnet50
            stem: Literal["cifar", "imagenet"] = "cifar" if image_size <= 64 else "imagenet"
            model = resnet(in_channels=in_channels, embedding_dim=self.embedding_dim, stem=stem)
        # Convolutions on CPUs are about a third faster in this layout.
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _check_positive(name: str, value: float) -> None:
    check_number(name, value, least=0)
    if value == 0:
        raise ValueError(f"{name}: expected a number above 0, got 0")
