"""Feature-space attack without a target: away from the own embedding, or from given anchors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mdprop_ext.attacks.attack import Attack
from mdprop_ext.attacks.engine import Observer
from mdprop_ext.attacks.model_state import BatchNormMode
from mdprop_ext.attacks.objectives import DistanceName, FeatureDistance, TargetRule, rows_of_output
from mdprop_ext.attacks.options import AttackOptions, step_length
from mdprop_ext.attacks.parametrisations import Pixels
from mdprop_ext.attacks.projections import Bound, NormName, Scalars, norm_by_name
from mdprop_ext.nn.normalized import ChannelValues


class FeaturePush(Attack):
    r"""Pushes each image's embedding away from that of the clean image, or from given anchors.

    .. math:: \max_{\lVert x - x_0 \rVert \le \epsilon} \; \frac1T \sum_{t=1}^T \lVert f(x) - a_t \rVert_2^2

    It needs neither labels nor other images. Without ``anchors`` the only anchor is :math:`f(x_0)`, computed once
    through the same branch. Success: the embedding ends further from its anchors than that of the clean image was. As
    the first step does that almost always, there is no ``early_stop``.

    Args:
        model: The attacked model, which gives embeddings ``[N, D]``.
        anchors: Embeddings or codes ``[N, D]`` or ``[N, T, D]`` to leave; or a rule
            ``(clean_output, y, generator) -> anchors``, such as ``lambda output, y, generator: class_centres[y]``. None
            means the clean image's own embedding.
        eps: Radius in pixel units of ``bounds``: a number or ``[N]``. The default is one of linf, next to nothing in
            l2 and l1; see :class:`PGD` for customary radii there.
        alpha: Length of a step in the same units; None means ``eps`` for one step and ``2.5 * eps / steps`` for more.
        steps: Number of gradient steps; 0 returns the input.
        random_start: Whether to start uniformly in the ball instead of at the image. Without anchors it must: the
            distance to the own embedding has no gradient at the image.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        distance: ``"sqeuclidean"``, ``"euclidean"``, ``"cosine"`` or ``"dot"``; see :class:`FeatureDistance`.
        branch: Batch norm branch to attack through, by name or index; None leaves the current route.
        bn_mode: ``"running"`` statistics, those of the ``"batch"`` without writing them, or ``"train"``, which updates
            the running ones.
        bounds: Least and greatest pixel value.
        mean: Mean that the model's input is normalised with, a number or one a channel; the images are not normalised.
        std: Standard deviation that the model's input is normalised with.
        generator: Source of random numbers; see :class:`Attack`.
        restarts: Number of random starts, of which each image keeps the best.
        keep_best: Whether to keep each image's best iterate instead of the last.
        mask: Tensor that broadcasts to the images; pixels where it is 0 or False do not change.
        output_fn: Picks the embeddings out of the model's output; None where the output is the embeddings.
        callback: ``callback(step, state)`` for each iterate that is evaluated; see :class:`Attack`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has a wrong value.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> x_adv = FeaturePush(model, eps=8 / 255, steps=5)(torch.rand(2, 1, 2, 2))
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        anchors: Tensor | TargetRule | None = None,
        eps: Scalars = 8 / 255,
        alpha: Scalars | None = None,
        steps: int = 10,
        random_start: bool = True,
        norm: NormName = "linf",
        distance: DistanceName = "sqeuclidean",
        branch: str | int | None = None,
        bn_mode: BatchNormMode = "running",
        bounds: tuple[Bound, Bound] = (0, 1),
        mean: ChannelValues | None = None,
        std: ChannelValues | None = None,
        generator: torch.Generator | None = None,
        restarts: int = 1,
        keep_best: bool = True,
        mask: Tensor | None = None,
        output_fn: Callable[[Any], Any] | None = None,
        callback: Observer | None = None,
    ) -> None:
        if anchors is None and not random_start:
            raise ValueError("random_start: expected True without anchors, where the image itself has no gradient")
        if anchors is not None and not isinstance(anchors, Tensor) and not callable(anchors):
            raise TypeError(f"anchors: expected embeddings, a callable or None, got {type(anchors).__name__}")
        super().__init__(
            model,
            objective=FeatureDistance(distance=distance),
            target=own_embedding if anchors is None else anchors,
            norm=norm_by_name(norm),
            parametrisation=Pixels(mean, std),
            options=AttackOptions(
                eps=eps,
                alpha=step_length(alpha, eps, steps),
                steps=steps,
                random_start=random_start,
                restarts=restarts,
                keep_best=keep_best,
                branch=branch,
                bn_mode=bn_mode,
                bounds=bounds,
                mask=mask,
            ),
            generator=generator,
            output_fn=output_fn,
            callback=callback,
        )


def own_embedding(output: Any, y: Any, generator: torch.Generator) -> Tensor:
    """Target rule: the embedding ``[N, D]`` of the clean image itself."""
    return rows_of_output(output, "embeddings")
