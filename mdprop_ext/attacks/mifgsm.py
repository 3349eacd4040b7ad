"""The momentum iterative fast gradient sign method (MI-FGSM) on any objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mdprop_ext.attacks.attack import Attack
from mdprop_ext.attacks.engine import Observer
from mdprop_ext.attacks.model_state import BatchNormMode
from mdprop_ext.attacks.objectives import CrossEntropy, Objective, TargetRule
from mdprop_ext.attacks.options import AttackOptions, step_length
from mdprop_ext.attacks.parametrisations import Pixels
from mdprop_ext.attacks.projections import Bound, Scalars, norm_by_name
from mdprop_ext.nn.normalized import ChannelValues


class MIFGSM(Attack):
    r"""Projected steps along a velocity that gathers the gradients: steadier directions, which transfer better.

    .. math::
        g_{k+1} = \mu \, g_k + \frac{\nabla_x J(f(x_k), y)}{\operatorname{mean} |\nabla_x J(f(x_k), y)|}, \qquad
        x_{k+1} = \Pi_{\lVert x - x_0 \rVert \le \epsilon,\; x \in [l, u]} \bigl(x_k + \alpha \, d(g_{k+1})\bigr)

    with :math:`d` the sign (linf) or the unit vector (l2).

    Args:
        model: The attacked model, in any mode; its output is whatever the objective takes.
        eps: Radius in pixel units of ``bounds``: a number or ``[N]``. The default is one of linf, next to nothing in
            l2; see :class:`PGD` for customary radii there.
        alpha: Length of a step in the same units; None means ``eps / steps``, as in the paper.
        steps: Number of gradient steps; 0 returns the input.
        decay: Decay factor of the velocity, >= 0; 0 forgets each gradient after its step.
        random_start: Whether to start uniformly in the ball instead of at the image.
        norm: ``"linf"`` or ``"l2"``.
        objective: ``(output, targets) -> [N]``, maximised; None means :class:`CrossEntropy`, targeted where ``target``
            is given.
        target: Targets given to the objective in place of the labels; see :class:`PGD`.
        branch: Batch norm branch to attack through, by name or index; None leaves the current route.
        bn_mode: ``"running"`` statistics, those of the ``"batch"`` without writing them, or ``"train"``, which updates
            the running ones.
        bounds: Least and greatest pixel value.
        mean: Mean that the model's input is normalised with, a number or one a channel; the images are not normalised.
        std: Standard deviation that the model's input is normalised with.
        generator: Source of random numbers; see :class:`Attack`.
        restarts: Number of random starts, of which each sample keeps the best.
        keep_best: Whether to keep each sample's best iterate instead of the last. The last, the default, is the paper's
            and the one to choose for images that are to fool another model.
        early_stop: Whether a sample keeps the first iterate that succeeds, and is taken out of the batch then.
        mask: Tensor that broadcasts to the images; pixels where it is 0 or False do not change.
        output_fn: Applied to the model's output before target rule and objective see it.
        callback: ``callback(step, state)`` for each iterate that is evaluated; see :class:`Attack`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has a wrong value.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> x_adv = MIFGSM(model, eps=8 / 255, steps=10, decay=0.9)(torch.rand(2, 1, 2, 2), torch.tensor([0, 2]))

    Reference:
        Dong et al.: Boosting Adversarial Attacks with Momentum, CVPR 2018, arXiv:1710.06081.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        eps: Scalars = 8 / 255,
        alpha: Scalars | None = None,
        steps: int = 10,
        decay: float = 1.0,
        random_start: bool = False,
        norm: Literal["linf", "l2"] = "linf",
        objective: Objective | None = None,
        target: int | Tensor | TargetRule | None = None,
        branch: str | int | None = None,
        bn_mode: BatchNormMode = "running",
        bounds: tuple[Bound, Bound] = (0, 1),
        mean: ChannelValues | None = None,
        std: ChannelValues | None = None,
        generator: torch.Generator | None = None,
        restarts: int = 1,
        keep_best: bool = False,
        early_stop: bool = False,
        mask: Tensor | None = None,
        output_fn: Callable[[Any], Any] | None = None,
        callback: Observer | None = None,
    ) -> None:
        if norm not in ("linf", "l2"):
            # A step of l1 picks single pixels, and a velocity of those is the sign of nearly all pixels.
            raise ValueError(f"norm: expected one of linf, l2, got {norm!r}")
        super().__init__(
            model,
            objective=CrossEntropy(targeted=target is not None) if objective is None else objective,
            target=target,
            norm=norm_by_name(norm),
            parametrisation=Pixels(mean, std),
            options=AttackOptions(
                eps=eps,
                alpha=step_length(alpha, eps, steps, reach=1.0),
                steps=steps,
                random_start=random_start,
                restarts=restarts,
                keep_best=keep_best,
                branch=branch,
                bn_mode=bn_mode,
                bounds=bounds,
                mask=mask,
                momentum=decay,
                early_stop=early_stop,
            ),
            generator=generator,
            output_fn=output_fn,
            callback=callback,
        )
