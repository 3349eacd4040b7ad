"""Negative control of MDProp: random noise in place of adversarial perturbations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mdprop_ext.nn import convert_multi_bn, use_branches
from mdprop_ext.recipes._mixture import LossMode, check_mixture, mixture_loss, split_in_halves
from mdprop_ext.recipes.base import Batch, Recipe, spawn_generators


@dataclass(frozen=True, kw_only=True)
class MDPropNoiseConfig:
    """Hyper-parameters of :class:`MDPropNoise`.

    Args:
        eps: Size of the noise in pixel units of [0, 1].
        loss: ``"joint"``: one loss over the union of all images; ``"separate"``: the mean of one loss for each of the
            three distributions.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a value is out of range.
    """

    eps: float = 16 / 255
    loss: LossMode = "joint"

    def __post_init__(self) -> None:
        check_mixture(self.eps, self.loss)


class MDPropNoise(Recipe[MDPropNoiseConfig]):
    """MDProp with every pixel moved by ``eps`` up or down at random: tells what the attacks are worth.

    Branches, batches and loss are those of :class:`~mdprop_ext.recipes.MDProp`.

    Reference:
        Singh, Kakizaki, Araki: Advancing Deep Metric Learning With Adversarial Robustness, ACML 2023, arXiv:2211.16253.
    """

    name = "mdprop_noise"
    summary = "control: random sign noise in place of MDProp's attacks"
    paper = "Control of MDProp, Singh et al., ACML 2023, arXiv:2211.16253"
    config_class = MDPropNoiseConfig
    branches = ("main", "st", "mt")

    def prepare(self, model: nn.Module) -> nn.Module:
        """Gives every batch norm three branches, running statistics included."""
        (self.generator,) = spawn_generators(self.seed, 1)
        return convert_multi_bn(model, self.branches, fuse_activation=True)

    def step(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Adds noise to both halves of the batch and computes the loss of all images; see :meth:`Recipe.step`."""
        images, labels = batch
        st, mt = split_in_halves(labels)
        st_images, mt_images = self._with_noise(images[st]), self._with_noise(images[mt])

        sizes = {"main": len(images), "st": len(st), "mt": len(mt)}
        with use_branches(model, sizes):
            embeddings = model(torch.cat([images, st_images, mt_images]))

        all_labels = torch.cat([labels, labels[st], labels[mt]])
        return {"loss": mixture_loss(self.criterion, embeddings, all_labels, [*sizes.values()], self.config.loss)}

    def _with_noise(self, images: Tensor) -> Tensor:
        signs = torch.randint(2, images.shape, generator=self.generator).to(images) * 2 - 1
        return (images + self.config.eps * signs).clamp(0, 1)
