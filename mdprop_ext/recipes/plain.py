"""Plain metric learning: the baseline of every other recipe."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from mdprop_ext.recipes.base import Batch, Recipe


@dataclass(frozen=True, kw_only=True)
class PlainConfig:
    """Plain training has no hyper-parameters of its own."""


class Plain(Recipe[PlainConfig]):
    """Trains on clean images alone, with ordinary batch norm.

    Reference:
        X. Wang, X. Han, W. Huang, D. Dong, M. Scott: Multi-Similarity Loss with General Pair Weighting for Deep Metric
        Learning, CVPR 2019.
    """

    name = "plain"
    summary = "clean images only, ordinary batch norm"
    paper = "Multi-similarity loss, Wang et al., CVPR 2019"
    config_class = PlainConfig

    def prepare(self, model: nn.Module) -> nn.Module:
        """Returns the model as it is."""
        return model

    def step(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Computes the loss of the clean batch; see :meth:`Recipe.step`."""
        images, labels = batch
        return {"loss": self.criterion(model(images), labels)}
