"""One projected ascent step of an adversarial attack."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mdprop_ext.ops import _check
from mdprop_ext.ops._register import register_gradient, register_op
from mdprop_ext.reference.pgd_step import pgd_step as reference_pgd_step

NORMS = ("linf", "l2")


def pgd_step(
    x: Tensor,
    grad: Tensor,
    origin: Tensor,
    *,
    norm: str,
    step: float | Tensor,
    radius: float | Tensor,
    lower: float | Tensor = 0.0,
    upper: float | Tensor = 1.0,
) -> Tensor:
    """Moves each sample up its gradient and projects it onto the ball around its origin and onto the box.

    With ``direction = sign(grad)`` for linf and ``grad / ||grad||_2`` for l2, per sample::

        x' = clamp(project(x + step * direction, {||x' - origin|| <= radius}), lower, upper)

    The result obeys ball and box after rounding to its dtype: where rounding would leave the ball, the value moves
    towards the origin. A zero gradient moves nothing, ``sign(NaN)`` is 0, and a NaN in ``x`` or ``origin`` stays NaN.
    If an origin lies outside the box, the box wins. To descend, negate ``step``.

    Args:
        x: ``[N, *]`` current points, float32, float64, bfloat16 or float16; contiguous or channels_last, which is kept.
        grad: Like ``x``.
        origin: Like ``x``, the centres of the balls.
        norm: ``"linf"`` or ``"l2"``.
        step: Length of the step in the norm, a number or ``[N]``.
        radius: Radius of the ball, >= 0, a number or ``[N]``. Rounded down where the compute dtype cannot hold it.
        lower: Lower bound of the box, a number or a tensor that broadcasts to ``x``.
        upper: Upper bound of the box, likewise.

    Returns:
        A new tensor like ``x``; it carries no gradient.

    Raises:
        TypeError: If an argument is not a tensor of the right dtype.
        ValueError: If shapes do not fit, ``norm`` is unknown, ``radius`` is negative or the bounds are crossed.

    Example:
        >>> x = torch.full((1, 2), 0.5)
        >>> pgd_step(x, torch.tensor([[3.0, -1.0]]), x, norm="linf", step=0.2, radius=0.1)
        tensor([[0.6000, 0.4000]])

    Reference:
        Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.
    """
    _check_arguments(x, grad, origin, norm, step, radius, lower, upper)
    lower_bound: Tensor | None = None
    upper_bound: Tensor | None = None
    if isinstance(lower, Tensor) or isinstance(upper, Tensor):
        dtype = _check.compute_dtype(x)
        lower_bound = torch.as_tensor(lower, dtype=dtype, device=x.device).expand(x.shape)
        upper_bound = torch.as_tensor(upper, dtype=dtype, device=x.device).expand(x.shape)
    return torch.ops.mdprop.pgd_step(  # type: ignore[no-any-return]
        x,
        grad,
        origin,
        norm,
        *_number_or_rows(step),
        *_number_or_rows(radius),
        *(_number_or_rows(lower)[0], lower_bound),
        *(_number_or_rows(upper)[0], upper_bound),
    )


class PgdStepFunction(torch.autograd.Function):
    """``torch.ops.mdprop.pgd_step`` as an autograd function whose result carries no gradient."""

    @staticmethod
    def forward(
        x: Tensor,
        grad: Tensor,
        origin: Tensor,
        norm: str,
        step: float,
        steps: Tensor | None,
        radius: float,
        radii: Tensor | None,
        lower: float,
        lower_bound: Tensor | None,
        upper: float,
        upper_bound: Tensor | None,
    ) -> Tensor:
        """Calls the op."""
        return torch.ops.mdprop.pgd_step(  # type: ignore[no-any-return]
            x, grad, origin, norm, step, steps, radius, radii, lower, lower_bound, upper, upper_bound
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Marks the result as not differentiable."""
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[None, ...]:
        """Never called with a gradient, since the result requires none."""
        return (None,) * 12


def _default(
    x: Tensor,
    grad: Tensor,
    origin: Tensor,
    norm: str,
    step: float,
    steps: Tensor | None,
    radius: float,
    radii: Tensor | None,
    lower: float,
    lower_bound: Tensor | None,
    upper: float,
    upper_bound: Tensor | None,
) -> Tensor:
    return reference_pgd_step(
        x,
        grad,
        origin,
        norm=norm,
        step=step if steps is None else steps,
        radius=radius if radii is None else radii,
        lower=lower if lower_bound is None else lower_bound,
        upper=upper if upper_bound is None else upper_bound,
    )


def _fake(x: Tensor, *args: Any) -> Tensor:
    return _check.empty_like_kernel(x)


register_op(
    "pgd_step",
    "(Tensor x, Tensor grad, Tensor origin, str norm, float step, Tensor? steps, float radius, Tensor? radii, "
    "float lower, Tensor? lower_bound, float upper, Tensor? upper_bound) -> Tensor",
    _default,
    _fake,
)
register_gradient("pgd_step", PgdStepFunction)


def _number_or_rows(value: float | Tensor) -> tuple[float, Tensor | None]:
    """The two arguments of the op for one option, of which the tensor counts if there is one."""
    return (0.0, value) if isinstance(value, Tensor) else (float(value), None)


def _check_arguments(
    x: Tensor,
    grad: Tensor,
    origin: Tensor,
    norm: str,
    step: float | Tensor,
    radius: float | Tensor,
    lower: float | Tensor,
    upper: float | Tensor,
) -> None:
    _check.floating("x", x)
    if x.dim() == 0:
        raise ValueError("x: expected [N, *], got a tensor without dimensions")
    _check.like("grad", grad, "x", x)
    _check.like("origin", origin, "x", x)
    if norm not in NORMS:
        raise ValueError(f"norm: expected one of {NORMS}, got {norm!r}")
    for name, value in (("step", step), ("radius", radius)):
        if isinstance(value, Tensor) and tuple(value.shape) != (x.shape[0],):
            raise ValueError(f"{name}: expected a number or [N] with N = {x.shape[0]}, got {list(value.shape)}")
    if not _may_hold(operator.ge, radius, 0):
        raise ValueError(f"radius: expected >= 0, got {radius}")
    for name, bound in (("lower", lower), ("upper", upper)):
        if isinstance(bound, Tensor) and not _broadcasts_to(bound.shape, x.shape):
            raise ValueError(f"{name}: expected a number or a tensor that broadcasts to x, got {list(bound.shape)}")
    if not _may_hold(operator.le, lower, upper):
        raise ValueError(f"lower: expected at most upper = {upper}, got {lower}")


def _may_hold(relation: Callable[[Any, Any], Any], a: float | Tensor, b: float | Tensor) -> bool:
    """Whether a relation holds, as far as that can be told without asking a device."""
    tensors = [value for value in (a, b) if isinstance(value, Tensor)]
    if tensors and (torch.compiler.is_compiling() or any(value.device.type != "cpu" for value in tensors)):
        return True
    return bool(relation(a, b).all() if tensors else relation(a, b))


def _broadcasts_to(shape: torch.Size, target: torch.Size) -> bool:
    tail = target[len(target) - len(shape) :]
    return len(shape) <= len(target) and all(a in (1, b) for a, b in zip(shape, tail, strict=True))
