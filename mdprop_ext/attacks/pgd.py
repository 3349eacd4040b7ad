"""Projected gradient descent (PGD) on any objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mdprop_ext.attacks.attack import Attack
from mdprop_ext.attacks.engine import Observer
from mdprop_ext.attacks.model_state import BatchNormMode
from mdprop_ext.attacks.objectives import CrossEntropy, Objective, TargetRule
from mdprop_ext.attacks.options import AttackOptions
from mdprop_ext.attacks.parametrisations import Pixels
from mdprop_ext.attacks.projections import Bound, NormName, Scalars, norm_by_name
from mdprop_ext.nn.normalized import ChannelValues


class PGD(Attack):
    r"""Projected gradient ascent of an objective in a ball around each image.

    .. math:: x_{k+1} = \Pi_{\lVert x - x_0 \rVert \le \epsilon,\; x \in [l, u]}
        \bigl(x_k + \alpha \, d(\nabla_x J(f(x_k), y))\bigr)

    with :math:`d` the sign (linf) or the unit vector (l2) of the gradient, or the signs of its greatest values (l1).
    Each sample keeps the iterate of its highest objective, for one forward pass more; ``keep_best=False`` returns the
    last one. Success is what the objective says; for a plain callable, that it exceeds its value on the clean image.

    Args:
        model: The attacked model, in any mode; its output is whatever the objective takes.
        eps: Radius in pixel units of ``bounds``: a number or ``[N]``. The default is one of linf. The other norms add
            up all pixels, and radii are of another order: for images in [0, 1] customary are 0.5 (32 x 32 pixels) to
            3.0 (224 x 224) in l2, and about 12 (32 x 32) in l1.
        alpha: Length of a step in the same units: a number or ``[N]``; give it too where ``norm`` is not linf.
        steps: Number of gradient steps; 0 returns the input.
        random_start: Whether to start uniformly in the ball instead of at the image.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        objective: ``(output, targets) -> [N]``, maximised; None means :class:`CrossEntropy`, targeted where ``target``
            is given.
        target: Targets given to the objective in place of the labels: one class, a tensor with one row a sample, or a
            rule ``(clean_output, y, generator) -> targets``, such as :func:`least_likely` or
            :func:`random_other_class`.
        branch: Batch norm branch to attack through, by name or index; None leaves the current route.
        bn_mode: ``"running"`` statistics, those of the ``"batch"`` without writing them, or ``"train"``, which updates
            the running ones.
        bounds: Least and greatest pixel value.
        mean: Mean that the model's input is normalised with, a number or one a channel; the images are not normalised.
        std: Standard deviation that the model's input is normalised with.
        generator: Source of random numbers; see :class:`Attack`.
        restarts: Number of random starts, of which each sample keeps the best.
        keep_best: Whether to keep each sample's best iterate instead of the last.
        early_stop: Whether a sample keeps the first iterate that succeeds, and is taken out of the batch then.
        mask: Tensor that broadcasts to the images; pixels where it is 0 or False do not change.
        output_fn: Applied to the model's output before target rule and objective see it.
        callback: ``callback(step, state)`` for each iterate that is evaluated; see :class:`Attack`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has a wrong value.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> x_adv = PGD(model, eps=4 / 255, alpha=1 / 255, steps=5)(torch.rand(2, 1, 2, 2), torch.tensor([0, 2]))

    Reference:
        Madry, Makelov, Schmidt, Tsipras, Vladu: Towards Deep Learning Models Resistant to Adversarial Attacks, ICLR
        2018, arXiv:1706.06083.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        eps: Scalars = 8 / 255,
        alpha: Scalars = 2 / 255,
        steps: int = 10,
        random_start: bool = True,
        norm: NormName = "linf",
        objective: Objective | None = None,
        target: int | Tensor | TargetRule | None = None,
        branch: str | int | None = None,
        bn_mode: BatchNormMode = "running",
        bounds: tuple[Bound, Bound] = (0, 1),
        mean: ChannelValues | None = None,
        std: ChannelValues | None = None,
        generator: torch.Generator | None = None,
        restarts: int = 1,
        keep_best: bool = True,
        early_stop: bool = False,
        mask: Tensor | None = None,
        output_fn: Callable[[Any], Any] | None = None,
        callback: Observer | None = None,
    ) -> None:
        super().__init__(
            model,
            objective=CrossEntropy(targeted=target is not None) if objective is None else objective,
            target=target,
            norm=norm_by_name(norm),
            parametrisation=Pixels(mean, std),
            options=AttackOptions(
                eps=eps,
                alpha=alpha,
                steps=steps,
                random_start=random_start,
                restarts=restarts,
                keep_best=keep_best,
                branch=branch,
                bn_mode=bn_mode,
                bounds=bounds,
                mask=mask,
                early_stop=early_stop,
            ),
            generator=generator,
            output_fn=output_fn,
            callback=callback,
        )
