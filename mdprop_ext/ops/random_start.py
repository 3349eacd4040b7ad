"""Random points of ball and box for an attack to start from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mdprop_ext.ops import _check
from mdprop_ext.ops._ball_and_box import BOX_SCHEMA, RADIUS_SCHEMA, bounds, check_ball_and_box, number_or_rows
from mdprop_ext.ops._register import register_gradient, register_op
from mdprop_ext.reference.random_start import random_start as reference_random_start


def random_start(
    origin: Tensor,
    *,
    norm: str,
    radius: float | Tensor,
    lower: float | Tensor = 0.0,
    upper: float | Tensor = 1.0,
    seed: int,
    offset: int = 0,
) -> Tensor:
    """Draws a point uniformly from the ball around each origin, then clamps it to the box.

    The noise of a value depends on ``seed``, ``offset``, the number of its sample and its place in the sample alone,
    not on device, number of threads, memory format or dtype. The compiled kernels, CPU and CUDA, give results that are
    equal bit for bit. The reference (``MDPROP_BACKEND=reference``, or no extension) uses torch's own logarithm and
    sine, so its l2 and l1 starts agree with theirs to rounding only.

    The result obeys ball and box after rounding to its dtype, as that of :func:`pgd_step` does; if an origin lies
    outside the box, the box wins.

    Args:
        origin: ``[N, *]`` centres of the balls, float32, float64, bfloat16 or float16.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        radius: Radius of the ball, >= 0, a number, a tensor of one, or ``[N]``.
        lower: Lower bound of the box, a number or a tensor that broadcasts to ``origin``.
        upper: Upper bound of the box, likewise.
        seed: Key of the random numbers, -2^63 <= seed < 2^63.
        offset: Which of the 2^64 streams of the key to use, for instance the number of a restart; in the same range.

    Returns:
        A new tensor like ``origin``; it carries no gradient.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If shapes do not fit, ``norm`` is unknown, ``radius`` is negative, the bounds are crossed, or a
            number is out of range.

    Example:
        >>> random_start(torch.full((1, 3), 0.5), norm="linf", radius=0.1, seed=1)
        tensor([[0.5781, 0.5789, 0.5171]])

    Reference:
        Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Barthe et al., "A probabilistic approach
        to the geometry of the l_p^n-ball", Annals of Probability 2005.
    """
    check_ball_and_box("origin", origin, norm, radius, lower, upper)
    for name, value in (("seed", seed), ("offset", offset)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"{name}: expected -2^63 <= {name} < 2^63, got {value}")
    return torch.ops.mdprop.random_start(  # type: ignore[no-any-return]
        origin, norm, *number_or_rows(radius, origin), *bounds(lower, upper, origin), seed, offset
    )


class RandomStartFunction(torch.autograd.Function):
    """``torch.ops.mdprop.random_start`` as an autograd function whose result carries no gradient."""

    @staticmethod
    def forward(
        origin: Tensor,
        norm: str,
        radius: float,
        radii: Tensor | None,
        lower: float,
        lower_bound: Tensor | None,
        upper: float,
        upper_bound: Tensor | None,
        seed: int,
        offset: int,
    ) -> Tensor:
        """Calls the op."""
        return torch.ops.mdprop.random_start(  # type: ignore[no-any-return]
            origin, norm, radius, radii, lower, lower_bound, upper, upper_bound, seed, offset
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Marks the result as not differentiable."""
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[None, ...]:
        """Never called with a gradient, since the result requires none."""
        return (None,) * 10


def _default(
    origin: Tensor,
    norm: str,
    radius: float,
    radii: Tensor | None,
    lower: float,
    lower_bound: Tensor | None,
    upper: float,
    upper_bound: Tensor | None,
    seed: int,
    offset: int,
) -> Tensor:
    return reference_random_start(
        origin,
        norm=norm,
        radius=radius if radii is None else radii,
        lower=lower if lower_bound is None else lower_bound,
        upper=upper if upper_bound is None else upper_bound,
        seed=seed,
        offset=offset,
    )


def _fake(origin: Tensor, *args: Any) -> Tensor:
    return _check.empty_like_kernel(origin)


register_op(
    "random_start", f"(Tensor origin, str norm, {RADIUS_SCHEMA}, {BOX_SCHEMA}, int seed, int offset) -> Tensor",
    _default, _fake,
)  # fmt: skip
register_gradient("random_start", RandomStartFunction)
