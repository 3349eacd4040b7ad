"""The fast gradient sign method (FGSM) on any objective."""

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


class FGSM(Attack):
    r"""One step from the image to the surface of the ball, for one forward and one backward pass.

    .. math:: x' = \Pi_{[l, u]} \bigl(x + \epsilon \, d(\nabla_x J(f(x), y))\bigr)

    with :math:`d` the sign (linf) or the unit vector (l2) of the gradient, or the signs of its greatest values (l1). It
    starts at the image itself; ``PGD(steps=1)`` starts at random.

    Args:
        model: The attacked model, in any mode; its output is whatever the objective takes.
        eps: Radius and length of the step in pixel units of ``bounds``: a number or ``[N]``. The default is one of
            linf, next to nothing in l2 and l1; see :class:`PGD` for customary radii there.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        objective: ``(output, targets) -> [N]``, maximised; None means :class:`CrossEntropy`, targeted where ``target``
            is given.
        target: Targets given to the objective in place of the labels; see :class:`PGD`.
        branch: Batch norm branch to attack through, by name or index; None leaves the current route.
        bn_mode: ``"running"`` statistics, those of the ``"batch"`` without writing them, or ``"train"``, which updates
            the running ones.
        bounds: Least and greatest pixel value.
        mean: Mean that the model's input is normalised with, a number or one a channel; the images are not normalised.
        std: Standard deviation that the model's input is normalised with.
        generator: Source of random numbers, for target rules that draw; see :class:`Attack`.
        mask: Tensor that broadcasts to the images; pixels where it is 0 or False do not change.
        output_fn: Applied to the model's output before target rule and objective see it.
        callback: ``callback(step, state)`` for the image itself; see :class:`Attack`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has a wrong value.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> x_adv = FGSM(model, eps=4 / 255)(torch.rand(2, 1, 2, 2), torch.tensor([0, 2]))

    Reference:
        Goodfellow, Shlens, Szegedy: Explaining and Harnessing Adversarial Examples, ICLR 2015, arXiv:1412.6572.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        eps: Scalars = 8 / 255,
        norm: NormName = "linf",
        objective: Objective | None = None,
        target: int | Tensor | TargetRule | None = None,
        branch: str | int | None = None,
        bn_mode: BatchNormMode = "running",
        bounds: tuple[Bound, Bound] = (0, 1),
        mean: ChannelValues | None = None,
        std: ChannelValues | None = None,
        generator: torch.Generator | None = None,
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
                alpha=eps,
                steps=1,
                random_start=False,
                keep_best=False,
                branch=branch,
                bn_mode=bn_mode,
                bounds=bounds,
                mask=mask,
            ),
            generator=generator,
            output_fn=output_fn,
            callback=callback,
        )
