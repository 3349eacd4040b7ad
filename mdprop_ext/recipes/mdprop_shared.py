"""Control of MDProp: the same adversarial images, but one batch norm for all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mdprop_ext.attacks import FeatureTargetAttack
from mdprop_ext.recipes._mixture import mixture_loss, split_in_halves
from mdprop_ext.recipes.base import Batch, Recipe, spawn_generators
from mdprop_ext.recipes.mdprop import MDPropConfig


class MDPropShared(Recipe[MDPropConfig]):
    """MDProp with ordinary batch norm: tells what the branches are worth.

    Clean and adversarial images share statistics, scales and shifts; all else is as in
    :class:`~mdprop_ext.recipes.MDProp`.

    Reference:
        Singh, Kakizaki, Araki: Advancing Deep Metric Learning With Adversarial Robustness, ACML 2023, arXiv:2211.16253.
    """

    name = "mdprop_shared"
    summary = "control: MDProp's images through one shared batch norm"
    paper = "Control of MDProp, Singh et al., ACML 2023, arXiv:2211.16253"
    config_class = MDPropConfig

    def prepare(self, model: nn.Module) -> nn.Module:
        """Builds the two attacks and leaves the model as it is."""
        st_generator, mt_generator = spawn_generators(self.seed, 2)
        eps, steps = self.config.eps, self.config.attack_steps
        self.st_attack = FeatureTargetAttack(model, targets=1, eps=eps, steps=steps, generator=st_generator)
        self.mt_attack = FeatureTargetAttack(
            model, targets=self.config.mt_targets, eps=eps, steps=steps, generator=mt_generator
        )
        return model

    def step(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Attacks both halves of the batch and computes the loss of all images; see :meth:`Recipe.step`."""
        images, labels = batch
        st, mt = split_in_halves(labels)
        st_images = self.st_attack(images[st], labels[st])
        mt_images = self.mt_attack(images[mt], labels[mt])

        embeddings = model(torch.cat([images, st_images, mt_images]))

        all_labels = torch.cat([labels, labels[st], labels[mt]])
        sizes = [len(images), len(st), len(mt)]
        return {"loss": mixture_loss(self.criterion, embeddings, all_labels, sizes, self.config.loss)}
