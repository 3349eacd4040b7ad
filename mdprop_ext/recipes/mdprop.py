"""MDProp: multi-distribution propagation for deep metric learning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mdprop_ext.attacks import FeatureTargetAttack
from mdprop_ext.nn import convert_multi_bn, use_branches
from mdprop_ext.recipes._mixture import LossMode, check_mixture, mixture_loss, split_in_halves
from mdprop_ext.recipes.base import Batch, Recipe, spawn_generators


@dataclass(frozen=True, kw_only=True)
class MDPropConfig:
    """Hyper-parameters of :class:`MDProp`.

    Args:
        eps: Radius of the attacks in pixel units of [0, 1], linf.
        attack_steps: Gradient steps of an attack, at least 1. One step is as long as ``eps``, several go
            ``2.5 * eps / attack_steps`` each.
        mt_targets: Targets of a multi-targeted example, at least 1; the single-targeted ones have one.
        loss: ``"joint"``: one loss over the union of all images, in which clean and adversarial ones make pairs;
            ``"separate"``: the mean of one loss for each of the three distributions.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a value is out of range.
    """

    eps: float = 16 / 255
    attack_steps: int = 1
    mt_targets: int = 5
    loss: LossMode = "joint"

    def __post_init__(self) -> None:
        check_mixture(self.eps, self.loss, attack_steps=self.attack_steps, mt_targets=self.mt_targets)


class MDProp(Recipe[MDPropConfig]):
    """Trains on clean images and two kinds of adversarial ones, each normalised by a batch norm branch of its own.

    Single-targeted examples (ST) are pulled to the embedding of one image of another class; multi-targeted ones (MT)
    to several at once, so to the dense regions between classes. Trained on with the label of their source, they push
    classes out of these regions. The network deployed is branch ``"main"``, which sees clean images only.

    Each image of a batch gets one adversarial example: half of the images an ST, the others an MT one. Attacks go
    through the branch that their examples will be trained in, with its running statistics. One forward pass embeds
    everything, so a step costs about three times a plain one.

    Reference:
        Singh, Kakizaki, Araki: Advancing Deep Metric Learning With Adversarial Robustness, ACML 2023, arXiv:2211.16253.
    """

    name = "mdprop"
    summary = "clean, single- and multi-targeted adversarial images in three batch norm branches"
    paper = "MDProp, Singh et al., ACML 2023, arXiv:2211.16253"
    config_class = MDPropConfig
    branches = ("main", "st", "mt")

    def prepare(self, model: nn.Module) -> nn.Module:
        """Gives every batch norm three branches, running statistics included, and builds the two attacks."""
        model = convert_multi_bn(model, self.branches, fuse_activation=True)
        st_generator, mt_generator = spawn_generators(self.seed, 2)
        eps, steps = self.config.eps, self.config.attack_steps
        self.st_attack = FeatureTargetAttack(
            model, targets=1, eps=eps, steps=steps, branch="st", generator=st_generator
        )
        self.mt_attack = FeatureTargetAttack(
            model, targets=self.config.mt_targets, eps=eps, steps=steps, branch="mt", generator=mt_generator
        )
        return model

    def step(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Attacks both halves of the batch and computes the loss of all images; see :meth:`Recipe.step`."""
        images, labels = batch
        st, mt = split_in_halves(labels)
        st_images = self.st_attack(images[st], labels[st])
        mt_images = self.mt_attack(images[mt], labels[mt])

        sizes = {"main": len(images), "st": len(st), "mt": len(mt)}
        with use_branches(model, sizes):
            embeddings = model(torch.cat([images, st_images, mt_images]))

        # An adversarial image keeps the label of the image that it was made from.
        all_labels = torch.cat([labels, labels[st], labels[mt]])
        return {"loss": mixture_loss(self.criterion, embeddings, all_labels, [*sizes.values()], self.config.loss)}
