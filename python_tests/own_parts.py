"""A model, a criterion and a recipe as a user would write them, named ``own_parts:...`` in tests."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdprop_ext.attacks import FeatureTargetAttack
from mdprop_ext.recipes import Batch, Recipe


def make_model(*, in_channels: int, embedding_dim: int, image_size: int) -> nn.Module:
    """A small network whose dropout draws from the global random state."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, embedding_dim),
    )


def make_wrong_size(*, in_channels: int, embedding_dim: int, image_size: int) -> nn.Module:
    return make_model(in_channels=in_channels, embedding_dim=embedding_dim + 1, image_size=image_size)


def make_no_module(*, in_channels: int, embedding_dim: int, image_size: int) -> str:
    return "a model"


def make_mistake(*, in_channels: int, embedding_dim: int, image_size: int) -> nn.Module:
    return nn.Linear(in_channels + "pixels", embedding_dim)  # type: ignore[operator]


def make_too_little(channels: int) -> nn.Module:
    return nn.Identity()


class Proxies(nn.Module):
    """Cross-entropy against one learned proxy a class, with a generator of its own for label noise."""

    def __init__(self, classes: int, embedding_dim: int) -> None:
        super().__init__()
        self.proxies = nn.Parameter(torch.randn(classes, embedding_dim))
        self.generator = torch.Generator().manual_seed(1)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        logits = 4 * F.normalize(embeddings.float()) @ F.normalize(self.proxies).T
        noise = torch.rand(logits.shape, generator=self.generator).to(logits)
        return F.cross_entropy(logits + 0.1 * noise, labels)


@dataclass(frozen=True, kw_only=True)
class OwnConfig:
    radii: tuple[float, ...] = (0.1, 0.05)


class Own(Recipe[OwnConfig]):
    """Keeps its state in all the places that a recipe may keep it in."""

    name = "own"
    summary = "of the tests"
    paper = "none"
    config_class = OwnConfig

    def prepare(self, model: nn.Module) -> nn.Module:
        """Builds attacks that draw their generators from the global random state."""
        self.attacks = [FeatureTargetAttack(model, eps=radius) for radius in self.config.radii]
        self.calls = {"step": 0}
        self.average: Tensor | None = None
        return model

    def step(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Attacks by the next attack; the loss depends on the step and on an average."""
        images, labels = batch
        attack = self.attacks[self.calls["step"] % len(self.attacks)]
        self.calls["step"] += 1
        embeddings = model(attack(images, labels))
        centre = embeddings.detach().mean(0)
        self.average = centre if self.average is None else self.average.lerp(centre, 0.5)
        drift = (embeddings - self.average).square().mean()
        return {"loss": self.criterion(embeddings, labels) + 0.01 * self.calls["step"] * drift, "drift": drift}


def make_linear(*, in_channels: int, embedding_dim: int, image_size: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, embedding_dim))
