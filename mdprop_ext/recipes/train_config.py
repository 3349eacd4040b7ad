"""How a model is trained, whatever the recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from mdprop_ext.nn.backbones import conv4, resnet18, resnet50
from mdprop_ext.recipes._arguments import check_choice, check_integer, check_number

ModelName = Literal["conv4", "resnet18", "resnet50"]
Schedule = Literal["constant", "linear"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Model, optimiser and length of a training run; the same for all recipes, so that they compare.

    Args:
        model: ``"conv4"``, ``"resnet18"`` or ``"resnet50"``; the latter two take images above 64 pixels by the stem for
            large images, others by that for small ones.
        embedding_dim: Numbers in an embedding, at least 1.
        learning_rate: Of Adam, above 0.
        schedule: ``"constant"``, or ``"linear"`` decay of the learning rate to 0 over the run.
        weight_decay: Of Adam, at least 0.
        steps: Optimizer steps, at least 1.
        epochs: Passes of the batch sampler instead of ``steps``, at least 1.
        classes_per_batch: Classes in a batch, at least 2. Where training has fewer, a batch holds all of them.
        images_per_class: Images of each class in a batch, at least 2. Where training has fewer classes than asked for,
            it is raised to keep the size of the batch.
        validate_every: Steps between two measurements of the validation split, at least 1.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a value is out of range.
    """

    model: ModelName = "conv4"
    embedding_dim: int = 64
    learning_rate: float = 1e-3
    schedule: Schedule = "constant"
    weight_decay: float = 0.0
    steps: int = 300
    epochs: int | None = None
    classes_per_batch: int = 32
    images_per_class: int = 2
    validate_every: int = 50

    def __post_init__(self) -> None:
        check_choice("model", self.model, get_args(ModelName))
        check_choice("schedule", self.schedule, get_args(Schedule))
        for name in ("embedding_dim", "steps", "validate_every"):
            check_integer(name, getattr(self, name), least=1)
        for name in ("classes_per_batch", "images_per_class"):
            check_integer(name, getattr(self, name), least=2)
        if self.epochs is not None:
            check_integer("epochs", self.epochs, least=1)
        check_number("learning_rate", self.learning_rate, least=0)
        check_number("weight_decay", self.weight_decay, least=0)
        if self.learning_rate == 0:
            raise ValueError("learning_rate: expected a number above 0, got 0")

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

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Returns the learning rate of a step, which counts from 1 to ``steps``."""
        return self.learning_rate * (1 - (step - 1) / steps if self.schedule == "linear" else 1)

    def build_model(self, in_channels: int, image_size: int) -> nn.Module:
        """Builds the network with new weights from the global random state.

        Args:
            in_channels: Channels of the images.
            image_size: Their height and width.

        Returns:
            A module from ``[N, in_channels, H, W]`` to unit embeddings ``[N, embedding_dim]``.
        """
        model: nn.Module
        if self.model == "conv4":
            model = conv4(in_channels=in_channels, embedding_dim=self.embedding_dim)
        else:
            resnet = resnet18 if self.model == "resnet18" else resnet50
            stem: Literal["cifar", "imagenet"] = "cifar" if image_size <= 64 else "imagenet"
            model = resnet(in_channels=in_channels, embedding_dim=self.embedding_dim, stem=stem)
        # Convolutions on CPUs are about a third faster in this layout.
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
