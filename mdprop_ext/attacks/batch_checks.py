"""Checks of one batch against the attack that is to have it."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from mdprop_ext.attacks.options import AttackOptions
from mdprop_ext.attacks.rows import broadcasts


def check_batch(x: Tensor, y: Any, *, target: Any, options: AttackOptions) -> None:
    """Raises unless images, labels, target and options fit each other; looks at no values.

    Raises:
        TypeError: If ``x`` is not a floating-point tensor.
        ValueError: If shapes disagree.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x: expected a floating-point tensor, got {got}")
    if x.dim() < 2:
        raise ValueError(f"x: expected a batch [N, *] of two dimensions or more, got shape {list(x.shape)}")
    rows = {"y": y, "target": target, "eps": options.eps, "alpha": options.alpha}
    for name, value in rows.items():
        if isinstance(value, Tensor) and (value.dim() == 0 or len(value) != len(x)):
            if name == "y" and x.dim() == 3:  # one image, most likely
                labels = f"beside y of shape {list(value.shape)}"
                raise ValueError(f"x: expected a batch [N, C, H, W], got shape {list(x.shape)} {labels}")
            raise ValueError(f"{name}: expected one row a sample, {len(x)} in all, got shape {list(value.shape)}")
    for name, value in (("mask", options.mask), *(("bounds", bound) for bound in options.bounds)):
        if isinstance(value, Tensor) and not broadcasts(value, x):
            raise ValueError(f"{name}: expected a tensor that broadcasts to x {list(x.shape)}, got {list(value.shape)}")


def warn_of_pixels(x: Tensor, options: AttackOptions, *, stacklevel: int) -> None:
    """Warns of images outside the bounds, or with NaN in them; asks the device once where there are none.

    Args:
        x: The images ``[N, *]``.
        options: Those of the attack.
        stacklevel: Callers up to the line to blame, as in :func:`warnings.warn` called in place of this function.
    """
    lower, upper = (bound.to(x) if isinstance(bound, Tensor) else bound for bound in options.bounds)
    if bool(((x >= lower) & (x <= upper)).all()):  # a NaN is neither
        return
    is_nan = x.isnan()
    broken = is_nan.flatten(1).any(dim=1).nonzero().flatten().tolist()
    if broken:
        warnings.warn(
            f"x has NaN in {len(broken)} of {len(x)} images, first at index {broken[0]}; what is found for them means "
            "nothing",
            stacklevel=stacklevel + 1,
        )
    if bool(((x < lower) | (x > upper)).any()):
        numbers = x[~is_nan]
        warnings.warn(
            f"x has values from {float(numbers.min()):.4g} to {float(numbers.max()):.4g}, outside the attack's bounds, "
            "to which its result is clipped; for normalised images pass pixels and give the attack mean= and std=",
            stacklevel=stacklevel + 1,
        )
