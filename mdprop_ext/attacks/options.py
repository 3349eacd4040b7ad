"""The options that every attack shares, checked once at construction."""

from __future__ import annotations

import warnings
from dataclasses import MISSING, dataclass, fields
from typing import get_args

import torch
from torch import Tensor

from mdprop_ext._arguments import check_bool, check_integer, check_number
from mdprop_ext.attacks.description import short
from mdprop_ext.attacks.model_state import BatchNormMode
from mdprop_ext.attacks.projections import Bound, Scalars


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AttackOptions:
    """How the engine searches.

    Args:
        eps: Radius of the ball in pixel units of ``bounds``: a number >= 0 or one a sample, ``[N]``.
        alpha: Length of a step in the same units: a number >= 0 or one a sample, ``[N]``.
        steps: Number of gradient steps, >= 0; 0 returns the input.
        random_start: Whether to start uniformly in the ball instead of at the input.
        restarts: Number of searches, >= 1, of which each sample keeps its best iterate.
        keep_best: Whether each sample keeps the iterate of the highest objective, starting point included, instead of
            the last one. The last iterate is then evaluated too, at the cost of one forward pass a restart.
        branch: Name or index of the batch norm branch to attack through; None leaves the current route.
        bn_mode: ``"running"``, ``"batch"`` or ``"train"``; see :func:`mdprop_ext.attacks.model_state.attack_mode`.
        bounds: Least and greatest pixel value: numbers, or tensors that broadcast to the images.
        mask: Tensor that broadcasts to the images; pixels where it is 0 or False do not change.
        momentum: Decay >= 0 of the gradients' velocity, as in MI-FGSM, which steps then follow; None means no velocity.
        early_stop: Whether a sample keeps the first point that succeeds and takes part in no later step or restart.

    Raises:
        TypeError: If an option has the wrong type.
        ValueError: If an option has a wrong value.
    """

    eps: Scalars
    alpha: Scalars
    steps: int
    random_start: bool = True
    restarts: int = 1
    keep_best: bool = True
    branch: str | int | None = None
    bn_mode: BatchNormMode = "running"
    bounds: tuple[Bound, Bound] = (0.0, 1.0)
    mask: Tensor | None = None
    momentum: float | None = None
    early_stop: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", _lengths("eps", self.eps))
        object.__setattr__(self, "alpha", _lengths("alpha", self.alpha))
        check_integer("steps", self.steps, least=0)
        check_integer("restarts", self.restarts, least=1)
        for name in ("random_start", "keep_best", "early_stop"):
            check_bool(name, getattr(self, name))
        if self.restarts > 1 and not (self.random_start and self.keep_best):
            raise ValueError("restarts: more than one needs random_start=True and keep_best=True")
        if self.bn_mode not in get_args(BatchNormMode):
            raise ValueError(f"bn_mode: expected one of {', '.join(get_args(BatchNormMode))}, got {self.bn_mode!r}")
        object.__setattr__(self, "bounds", _ordered_bounds(self.bounds))
        object.__setattr__(self, "mask", _boolean(self.mask))
        if self.momentum is not None:
            check_number("momentum", self.momentum, least=0)
        if self.early_stop and self.bn_mode != "running":
            # Statistics of a batch from which samples are taken out would change those that stay.
            raise ValueError(f"early_stop: expected bn_mode='running' beside it, got {self.bn_mode!r}")

    @property
    def inert(self) -> bool:
        """Whether no sample can change."""
        eps_is_zero = bool((self.eps == 0).all()) if isinstance(self.eps, Tensor) else self.eps == 0
        return self.steps == 0 or eps_is_zero

    def shown(self) -> dict[str, str]:
        """The options without a default or other than it, each as one word or so."""
        shown = {}
        for field in fields(self):
            value = short(getattr(self, field.name))  # as text, since tensors compare value by value
            if field.default is MISSING or value != short(field.default):
                shown[field.name] = value
        return shown

    def __repr__(self) -> str:
        return f"AttackOptions({', '.join(f'{name}={text}' for name, text in self.shown().items())})"


def warn_if_wider_than_pixels(options: AttackOptions, *, stacklevel: int) -> None:
    """Warns of an ``eps`` that reaches beyond the bounds from every pixel, as that of pixels up to 255 does in [0, 1].

    Args:
        options: Those of an attack in the maximum norm, where ``eps`` counts for each pixel.
        stacklevel: Callers up to the line to blame, as in :func:`warnings.warn` called in place of this function.
    """
    lower, upper = (bound.detach().cpu() if isinstance(bound, Tensor) else bound for bound in options.bounds)
    widest = float(torch.as_tensor(upper - lower).max())
    radii = torch.as_tensor(options.eps)
    if not bool((radii > widest).any()):
        return
    eps = float(radii.max())
    if isinstance(lower, Tensor) or isinstance(upper, Tensor):
        text = f"eps={eps:g} is larger than the widest range of pixels, {widest:g}"
    else:
        text = f"eps={eps:g} is larger than the range of pixels {lower:g} to {upper:g}"
        if (lower, upper) == (0, 1):
            text += f"; for {eps:g}/255 write {eps:g}/255"
    warnings.warn(text, stacklevel=stacklevel + 1)


def step_length(alpha: Scalars | None, eps: Scalars, steps: int, *, reach: float = 2.5) -> Scalars:
    """Returns ``alpha``, or where it is None a length that lets one step cross the radius, and several ``reach`` radii.

    More than one radius lets the steps turn.

    Raises:
        TypeError: If ``eps`` or ``steps`` has the wrong type.
        ValueError: If ``eps`` or ``steps`` has a wrong value.
    """
    eps = _lengths("eps", eps)
    check_integer("steps", steps, least=0)
    if alpha is not None:
        return alpha
    return eps if steps <= 1 else eps * (reach / steps)


def _lengths(name: str, value: Scalars) -> Scalars:
    if isinstance(value, Tensor) and value.dim() == 0:
        value = value.item()
    if isinstance(value, Tensor):
        if value.dim() != 1 or not value.is_floating_point():
            raise ValueError(
                f"{name}: expected a number or a floating-point [N], got {value.dtype} {list(value.shape)}"
            )
        # On the host: its values are looked at, and one copy an attack brings it to the images.
        with torch.inference_mode(False):
            value = value.detach().cpu().clone()
        if not bool(((value >= 0) & value.isfinite()).all()):
            raise ValueError(f"{name}: expected finite values >= 0, got {value.tolist()}")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a number or a tensor [N], got {type(value).__name__}")
    check_number(name, value, least=0)
    return float(value)


def _boolean(mask: Tensor | None) -> Tensor | None:
    if mask is None:
        return None
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask: expected a tensor that broadcasts to the images or None, got {type(mask).__name__}")
    with torch.inference_mode(False):
        return mask.detach() != 0


def _ordered_bounds(bounds: tuple[Bound, Bound]) -> tuple[Bound, Bound]:
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise TypeError(f"bounds: expected (lower, upper), got {bounds!r}")
    lower, upper = bounds
    for value in bounds:
        if isinstance(value, bool) or not isinstance(value, int | float | Tensor):
            raise TypeError(f"bounds: expected numbers or tensors, got {type(value).__name__}")
    with torch.inference_mode(False):
        ordered = bool((torch.as_tensor(lower) < torch.as_tensor(upper)).all())
    if not ordered:
        raise ValueError(f"bounds: expected lower < upper, got {bounds!r}")
    return lower, upper
