"""Feature-space attack towards other images of the batch, single- and multi-targeted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mdprop_ext.attacks.attack import Attack
from mdprop_ext.attacks.engine import Observer
from mdprop_ext.attacks.model_state import BatchNormMode
from mdprop_ext.attacks.objectives import DistanceName, FeatureTarget, TargetRule, rows_of_output
from mdprop_ext.attacks.options import AttackOptions, step_length
from mdprop_ext.attacks.parametrisations import Pixels
from mdprop_ext.attacks.projections import Bound, NormName, Scalars, norm_by_name
from mdprop_ext.nn.normalized import ChannelValues


class FeatureTargetAttack(Attack):
    r"""Pulls each image's embedding towards those of other images of its batch, or towards given embeddings.

    .. math:: \min_{\lVert x - x_0 \rVert \le \epsilon} \; \frac1T \sum_{t=1}^T \lVert f(x) - f(q_t) \rVert_2

    The target images :math:`q_t` are drawn anew for each image and call among those of another label; their embeddings
    are computed once, without gradient, through the same branch. In a call without labels every other image of the
    batch may be a target, those of the own class too. With several targets the image moves towards their middle, into
    dense regions of the embedding space. Success: the embedding ends nearer to its targets than to the clean image's.

    Args:
        model: The attacked model, which gives embeddings ``[N, D]``.
        targets: Number of targets T of each image, >= 1; distinct while the batch has enough images of other labels.
            Or the targets themselves: embeddings or codes ``[N, D]`` or ``[N, T, D]``, or a rule
            ``(clean_output, y, generator) -> embeddings``.
        eps: Radius in pixel units of ``bounds``: a number or ``[N]``. The default is one of linf, next to nothing in
            l2 and l1; see :class:`PGD` for customary radii there.
        alpha: Length of a step in the same units; None means ``eps`` for one step and ``2.5 * eps / steps`` for more.
        steps: Number of gradient steps; 0 returns the input.
        random_start: Whether to start uniformly in the ball instead of at the image.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        branch: Batch norm branch to attack through, by name or index; None leaves the current route.
        bn_mode: ``"running"`` statistics, those of the ``"batch"`` without writing them, or ``"train"``, which updates
            the running ones.
        bounds: Least and greatest pixel value.
        mean: Mean that the model's input is normalised with, a number or one a channel; the images are not normalised.
        std: Standard deviation that the model's input is normalised with.
        generator: Source of random numbers; see :class:`Attack`.
        restarts: Number of random starts towards the same targets, of which each image keeps the best.
        keep_best: Whether to keep each image's best iterate instead of the last. None means where more than one iterate
            is there to choose from: with one step the extra forward pass would cost as much as a third of the attack.
        distance: ``"euclidean"``, ``"sqeuclidean"``, ``"cosine"`` or ``"dot"``; see :class:`FeatureTarget`.
        early_stop: Whether an image keeps the first iterate that succeeds, and is taken out of the batch then.
        mask: Tensor that broadcasts to the images; pixels where it is 0 or False do not change.
        output_fn: Picks the embeddings out of the model's output; None where the output is the embeddings.
        callback: ``callback(step, state)`` for each iterate that is evaluated; see :class:`Attack`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has a wrong value; in a call, if all images of the batch have the same label, or
            without labels, if it is a single image.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> attack = FeatureTargetAttack(model, targets=2, eps=8 / 255)
        >>> x_adv = attack(torch.rand(4, 1, 2, 2), torch.tensor([0, 0, 1, 1]))

    Reference:
        Singh, Kakizaki, Araki: Advancing Deep Metric Learning With Adversarial Robustness, ACML 2023, arXiv:2211.16253.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        targets: int | Tensor | TargetRule = 1,
        eps: Scalars = 8 / 255,
        alpha: Scalars | None = None,
        steps: int = 1,
        random_start: bool = True,
        norm: NormName = "linf",
        branch: str | int | None = None,
        bn_mode: BatchNormMode = "running",
        bounds: tuple[Bound, Bound] = (0, 1),
        mean: ChannelValues | None = None,
        std: ChannelValues | None = None,
        generator: torch.Generator | None = None,
        restarts: int = 1,
        keep_best: bool | None = None,
        distance: DistanceName = "euclidean",
        early_stop: bool = False,
        mask: Tensor | None = None,
        output_fn: Callable[[Any], Any] | None = None,
        callback: Observer | None = None,
    ) -> None:
        super().__init__(
            model,
            objective=FeatureTarget(distance=distance),
            target=targets if isinstance(targets, Tensor) or callable(targets) else OtherEmbeddings(targets),
            norm=norm_by_name(norm),
            parametrisation=Pixels(mean, std),
            options=AttackOptions(
                eps=eps,
                alpha=step_length(alpha, eps, steps),
                steps=steps,
                random_start=random_start,
                restarts=restarts,
                keep_best=steps > 1 or restarts > 1 if keep_best is None else keep_best,
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


class OtherEmbeddings:
    """Target rule: the embeddings of other images of the batch, of another label where labels are given.

    Args:
        count: Number of targets of each image, >= 1.

    Raises:
        TypeError: If ``count`` is not an integer.
        ValueError: If ``count`` is less than 1.
    """

    def __init__(self, count: int) -> None:
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(f"targets: expected an integer, got {type(count).__name__}")
        if count < 1:
            raise ValueError(f"targets: expected at least 1, got {count}")
        self.count = count

    def __repr__(self) -> str:
        return f"OtherEmbeddings({self.count})"

    def __call__(self, output: Any, y: Any, generator: torch.Generator) -> Tensor:
        """Embeddings ``[N, T, D]`` of images drawn from the batch; see :meth:`indices`."""
        embeddings = rows_of_output(output, "embeddings")
        if y is None:
            y = torch.arange(len(embeddings), device=embeddings.device)
        return embeddings[self.indices(y, generator)]

    def indices(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """Draws targets of other labels, uniformly.

        Args:
            y: Labels int64 ``[N]``.
            generator: Source of the draws, on the device of ``y``.

        Returns:
            Positions in the batch, int64 ``[N, T]``. Targets of an image are distinct; where fewer than T images have
            another label, each of them comes once before any comes again.

        Raises:
            TypeError: If ``y`` is not an integer tensor ``[N]``.
            ValueError: If fewer than two labels are there.
        """
        if not isinstance(y, Tensor) or y.dim() != 1 or y.is_floating_point():
            got = f"{y.dtype} {list(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise TypeError(f"y: expected integer labels [N], got {got}")
        if bool((y == y[:1]).all()):
            raise ValueError(f"y: targets need images of two labels at least in the batch, got one label for {len(y)}")
        allowed = y[:, None] != y[None, :]
        # Sorting random keys in [0, 1) is a uniform permutation; keys of 2 leave the image's own label behind the
        # others.
        keys = torch.rand(allowed.shape, generator=generator, device=y.device).masked_fill(~allowed, 2.0)
        order = keys.argsort(dim=1)
        turns = torch.arange(self.count, device=y.device) % allowed.sum(dim=1, keepdim=True)
        return order.gather(1, turns)
