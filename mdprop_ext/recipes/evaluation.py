"""How models are judged: retrieval of unseen classes, clean and under attack.

The package's protocol for robustness is the function :func:`robust_protocol`; every number of it is measured by
:class:`RobustnessMeter`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mdprop_ext._arguments import check_integer, check_radius
from mdprop_ext.attacks import Attack, FeaturePush, FeatureTargetAttack
from mdprop_ext.data import ImageSet
from mdprop_ext.metrics import nearest_neighbours, pi_ratio, retrieval_metrics, spectral_decay
from mdprop_ext.nn import branch_names

_BATCH_SIZE = 256
PROTOCOL_ATTACKS = ("st", "mt2", "mt5")
PROTOCOL_EPS = 16 / 255
PROTOCOL_STEPS = 5


@dataclass(frozen=True, kw_only=True)
class AttackSetting:
    """One attack on test images.

    Args:
        attack: ``"st"``: pull to one image of another class; ``"mtT"``, such as ``"mt5"``: pull to T of them;
            ``"pgd"``: push away from the image's own clean embedding, without any target.
        eps: Radius in pixel units of [0, 1], linf.
        steps: Gradient steps, each of ``2.5 * eps / steps``, but one of ``eps``.
        branch: Batch norm branch that the attack goes through; a model without branches has ``"main"`` only.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a value is out of range.
    """

    attack: str
    eps: float = PROTOCOL_EPS
    steps: int = PROTOCOL_STEPS
    branch: str = "main"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"st|pgd|mt[1-9]\d{0,3}", self.attack):
            raise ValueError(
                f"attacks: expected st, pgd or mt with a number of targets such as mt5, got {self.attack!r}"
            )
        check_radius(self.eps)
        check_integer("steps", self.steps, least=0)

    @property
    def targets(self) -> int:
        """Number of target images: 0 for ``"pgd"``."""
        return {"st": 1, "pgd": 0}[self.attack] if self.attack in ("st", "pgd") else int(self.attack[2:])


def embed(model: nn.Module, images: ImageSet) -> Tensor:
    """Embeds all images by branch 0 in evaluation mode.

    Args:
        model: From images to embeddings; the ``training`` flags of its modules are restored.
        images: The N images.

    Returns:
        Embeddings ``[N, D]`` without gradient, on the model's device.
    """
    positions = torch.split(torch.arange(len(images)), _BATCH_SIZE)
    return _in_batches(model, positions, images.floats)


def clean_metrics(model: nn.Module, images: ImageSet) -> dict[str, float]:
    """Measures retrieval and embedding space on clean images.

    Args:
        model: From images to embeddings.
        images: Images of classes that were not trained on.

    Returns:
        ``recall_at_1``, ``_2``, ``_4``, ``_8``, ``map_at_r``, ``pi_ratio`` and ``spectral_decay``.

    Raises:
        ValueError: If the embeddings are not finite.
    """
    embeddings = embed(model, images)
    labels = images.labels.to(embeddings.device)
    retrieval = retrieval_metrics(embeddings, labels)
    del retrieval["lone_queries"]
    return {
        **retrieval,
        "pi_ratio": pi_ratio(embeddings, labels),
        "spectral_decay": spectral_decay(embeddings),
    }


class RobustnessMeter:
    """Measures R@1 of attacked queries against the clean gallery, each image's own clean version left out.

    Attacks run in batches that each hold images of as many classes as possible and see the network with running
    statistics. Whatever branch an attack goes through, queries and gallery are embedded by branch 0, the one deployed.
    The same seed gives the same attacks; results are kept, so that asking twice costs nothing.

    Args:
        model: The model under attack.
        images: The N test images, queries and gallery.
        seed: Of batches, targets and random starts.
    """

    def __init__(self, model: nn.Module, images: ImageSet, *, seed: int) -> None:
        self.model = model
        self.images = images
        self.seed = seed
        self.branches = branch_names(model) or ("main",)
        self.gallery = embed(model, images)
        self._batches = spread_batches(images.labels, seed)
        self._hits: dict[AttackSetting, Tensor] = {}

    def recall(self, setting: AttackSetting) -> float:
        """Returns R@1 under one attack."""
        return float(self.hits(setting).double().mean())

    def worst_recall(self, setting: AttackSetting) -> float:
        """Returns R@1 of an attacker who picks the best branch for each image: a hit must survive all of them."""
        by_branch = [self.hits(replace(setting, branch=branch)) for branch in self.branches]
        return float(torch.stack(by_branch).all(0).double().mean())

    def hits(self, setting: AttackSetting) -> Tensor:
        """Tells for each image with company in its class whether its attacked version finds it: bool ``[<= N]``."""
        if setting not in self._hits:
            self._hits[setting] = self._measure(setting)
        return self._hits[setting]

    def _measure(self, setting: AttackSetting) -> Tensor:
        attack = build_attack(self.model, setting, torch.Generator().manual_seed(self.seed))
        device = self.gallery.device
        labels = self.images.labels.to(device)

        def attacked(positions: Tensor) -> Tensor:
            return attack(self.images.floats(positions).to(device), labels[positions.to(device)])

        queries = torch.empty_like(self.gallery)
        queries[torch.cat(self._batches).to(device)] = _in_batches(self.model, self._batches, attacked)
        own = torch.arange(len(queries), device=device)
        nearest = nearest_neighbours(queries, self.gallery, 1, left_out=own)[:, 0]
        answerable = torch.bincount(labels)[labels] > 1
        return (labels[nearest] == labels)[answerable]


def robust_protocol(meter: RobustnessMeter) -> dict[str, dict[str, float]]:
    """Measures robustness by the package's protocol.

    Attacked queries against the clean gallery with the image itself left out; targets of other classes; random start in
    the ball; linf eps 16/255, 5 steps of 2.5 eps/5; branch main, running statistics.

    Args:
        meter: Of the model and test images.

    Returns:
        ``{"st": {"recall_at_1": r}, "mt2": ..., "mt5": ...}``.
    """
    return {name: {"recall_at_1": meter.recall(AttackSetting(attack=name))} for name in PROTOCOL_ATTACKS}


def grid_settings(attacks: Sequence[str], eps_255: Sequence[float], steps: Sequence[int]) -> list[AttackSetting]:
    """Combines every attack with every radius and number of steps.

    Args:
        attacks: Names as in :class:`AttackSetting`.
        eps_255: Radii in units of 1/255.
        steps: Numbers of gradient steps.

    Returns:
        The settings, through branch main.

    Raises:
        ValueError: If an attack is unknown or a number out of range.
    """
    combinations = itertools.product(attacks, eps_255, steps)
    return [AttackSetting(attack=attack, eps=eps / 255, steps=count) for attack, eps, count in combinations]


def robust_grid(
    meter: RobustnessMeter,
    settings: Sequence[AttackSetting],
    *,
    all_branches: bool,
) -> list[dict[str, Any]]:
    """Measures R@1 under many attacks.

    Args:
        meter: Of the model and test images.
        settings: The attacks, see :func:`grid_settings`.
        all_branches: Whether to attack through every branch and add a row of branch ``"worst"``, see
            :meth:`RobustnessMeter.worst_recall`, instead of through the settings' own branch alone.

    Returns:
        Rows ``{"attack", "targets", "eps_255", "steps", "branch", "recall_at_1"}``.
    """
    rows = []
    for setting in settings:
        branches = meter.branches if all_branches else (setting.branch,)
        by_branch = {branch: meter.recall(replace(setting, branch=branch)) for branch in branches}
        if len(branches) > 1:
            by_branch["worst"] = meter.worst_recall(setting)
        row = {
            "attack": setting.attack,
            "targets": setting.targets,
            "eps_255": round(setting.eps * 255, 6),
            "steps": setting.steps,
        }
        rows += [{**row, "branch": branch, "recall_at_1": recall} for branch, recall in by_branch.items()]
    return rows


def build_attack(model: nn.Module, setting: AttackSetting, generator: torch.Generator) -> Attack:
    """Builds the attack of a setting; its batches must hold two classes where it has targets."""
    branch = setting.branch if branch_names(model) else None
    if setting.targets:
        return FeatureTargetAttack(
            model,
            targets=setting.targets,
            eps=setting.eps,
            steps=setting.steps,
            branch=branch,
            generator=generator,
        )
    return FeaturePush(
        model,
        eps=setting.eps,
        steps=setting.steps,
        branch=branch,
        generator=generator,
    )


def _in_batches(model: nn.Module, batches: Sequence[Tensor], load: Callable[[Tensor], Tensor]) -> Tensor:
    """Embeds the images that ``load`` gives for each batch of positions, by branch 0 in evaluation mode."""
    training = [(module, module.training) for module in model.modules()]
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    model.eval()
    try:
        embeddings = []
        for positions in batches:
            images = load(positions).to(device)
            with torch.no_grad():
                embeddings.append(model(images))
        return torch.cat(embeddings)
    finally:
        for module, mode in training:  # one by one: a frozen module stays frozen
            module.training = mode


def spread_batches(labels: Tensor, seed: int) -> list[Tensor]:
    """Deals all positions to batches of nearly equal size, the images of each class to as many as possible.

    The largest class is dealt first and there are no more batches than images of others, so that each batch has two
    classes, as targets need, whenever the images have.
    """
    largest = torch.bincount(labels).argmax()
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[torch.where(labels == largest, -1, labels)[shuffled].argsort(stable=True)]
    others = int((labels != largest).sum())
    count = max(1, min(-(-len(labels) // _BATCH_SIZE), others))
    return [by_class[first::count] for first in range(count)]
