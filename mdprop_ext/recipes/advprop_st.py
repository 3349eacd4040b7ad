"""Control of MDProp: AdvProp for metric learning, two branches and single-targeted images only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mdprop_ext.attacks import FeatureTargetAttack
from mdprop_ext.nn import convert_multi_bn, use_branches
from mdprop_ext.recipes._mixture import LossMode, check_mixture, mixture_loss
from mdprop_ext.recipes.base import Batch, Recipe, spawn_generators


@dataclass(frozen=True, kw_only=True)
class AdvPropSTConfig:
    """Hyper-parameters of :class:`AdvPropST`.

    Args:
        eps: Radius of the attack in pixel units of [0, 1], linf.
        attack_steps: Gradient steps of the attack, at least 1.
        loss: ``"joint"``: one loss over the union of all images; ``"separate"``: the mean of one loss for each of the
            two distributions.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a value is out of range.
    """

    eps: float = 16 / 255
    attack_steps: int = 1
    loss: LossMode = "joint"

    def __post_init__(self) -> None:
        check_mixture(self.eps, self.loss, attack_steps=self.attack_steps)


class AdvPropST(Recipe[AdvPropSTConfig]):
    """Trains on clean and single-targeted images in two batch norm branches: tells what MDProp's third is worth.

    Every image gets one adversarial example, so their number is that of :class:`~mdprop_ext.recipes.MDProp`.

    Reference:
        Xie et al.: Adversarial Examples Improve Image Recognition, CVPR 2020, arXiv:1911.09665.
    """

    name = "advprop_st"
    summary = "control: AdvProp, clean and single-targeted adversarial images in two branches"
    paper = "AdvProp, Xie et al., CVPR 2020, arXiv:1911.09665"
    config_class = AdvPropSTConfig
    branches = ("main", "st")

    def prepare(self, model: nn.Module) -> nn.Module:
        """Gives every batch norm two branches, running statistics included, and builds the attack."""
        model = convert_multi_bn(model, self.branches, fuse_activation=True)
        (generator,) = spawn_generators(self.seed, 1)
        self.st_attack = FeatureTargetAttack(
            model,
            targets=1,
            eps=self.config.eps,
            steps=self.config.attack_steps,
            branch="st",
            generator=generator,
        )
        return model

    def step(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Attacks the batch and computes the loss of all images; see :meth:`Recipe.step`."""
        images, labels = batch
        st_images = self.st_attack(images, labels)

        sizes = {"main": len(images), "st": len(images)}
        with use_branches(model, sizes):
            embeddings = model(torch.cat([images, st_images]))

        all_labels = torch.cat([labels, labels])
        return {"loss": mixture_loss(self.criterion, embeddings, all_labels, [*sizes.values()], self.config.loss)}
