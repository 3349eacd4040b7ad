"""One projected ascent step of an adversarial attack."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mdprop_ext.ops import _check, _written
from mdprop_ext.ops._ball_and_box import (
    BOX_SCHEMA,
    RADIUS_SCHEMA,
    bounds,
    check_ball_and_box,
    check_broadcasts,
    check_finite,
    check_rows,
    number_or_rows,
    spread,
)
from mdprop_ext.ops._register import register_gradient, register_op
from mdprop_ext.reference.pgd_step import pgd_step as reference_pgd_step

# The tensors that must be apart from what is written, in the order in which a step passes them on.
_OTHERS = ("x", "grad", "origin", "step", "radius", "lower", "upper", "active", "mask", "out")


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
    active: Tensor | None = None,
    mask: Tensor | None = None,
    velocity: Tensor | None = None,
    decay: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """Moves each sample up its gradient and projects it onto the ball around its origin and onto the box.

    With ``direction = sign(grad)`` for linf and l1, and ``grad / ||grad||_2`` for l2, per sample::

        x' = project(x + step * direction, {||x' - origin|| <= radius, lower <= x' <= upper})

    where ``project`` is the projection onto the ball and then a clamp to the box for linf and l2 (for linf that is the
    nearest point of both), and the nearest point of ball and box together for l1.

    The result obeys ball and box after rounding to its dtype: where rounding would leave the ball, the value moves
    towards the origin. A zero gradient moves nothing, ``sign(NaN)`` is 0, and a NaN in ``x`` or ``origin`` stays NaN.
    If an origin lies outside the box, the box wins. To descend, negate ``step``.

    Args:
        x: ``[N, *]`` current points, float32, float64, bfloat16 or float16; contiguous or channels_last, which is kept.
        grad: Like ``x``.
        origin: Like ``x``, the centres of the balls; or uint8 images, whose values count as value / 255.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        step: Length of the step in the norm, for l1 of a single value; finite, a number, a tensor of one, or ``[N]``.
        radius: Radius of the ball, >= 0, likewise. Rounded down where the compute dtype cannot hold it.
        lower: Lower bound of the box, a number or a tensor that broadcasts to ``x``.
        upper: Upper bound of the box, likewise.
        active: ``[N]`` bool. Samples where it is False keep ``x``, bit for bit, and their velocity.
        mask: Tensor that broadcasts to ``x``. Where it is 0 or False the value of ``x`` stays, and so does the
            velocity; norms, projections and means take the other positions only.
        velocity: Like ``x`` and of its memory format, changed in place to ``decay * velocity + grad / mean|grad|``, the
            momentum of MI-FGSM, which then replaces ``grad``. A zero or not finite gradient adds nothing. Its memory
            is shared with no other argument.
        decay: Factor of the velocity.
        out: Tensor to write the result to, of the shape, device and memory format of ``x``; it may be ``x`` itself,
            and shares memory with nothing else. Its dtype is that of ``x``, or bfloat16 or float16 for float32 ``x``.
            Such a result obeys the ball too, as far as the dtype has values near the origin.

    Returns:
        ``out``, or a new tensor like ``x``; it carries no gradient.

    Raises:
        TypeError: If an argument is not a tensor of the right dtype, or not a number.
        ValueError: If shapes, devices or memory formats do not fit, ``norm`` is unknown, ``step`` is not finite,
            ``radius`` is negative or the bounds are crossed (checked for numbers and CPU tensors), or ``out`` or
            ``velocity`` shares memory with another argument or requires a gradient while gradients are recorded.

    Example:
        >>> x = torch.full((1, 2), 0.5)
        >>> pgd_step(x, torch.tensor([[3.0, -1.0]]), x, norm="linf", step=0.2, radius=0.1)
        tensor([[0.6000, 0.4000]])

    Reference:
        Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018. Dong et al., "Boosting
        Adversarial Attacks with Momentum", CVPR 2018.
    """
    check_ball_and_box("x", x, norm, radius, lower, upper)
    _check_points(x, grad, origin)
    check_rows("step", step, x)
    check_finite("step", step)
    _check_choices(x, active, mask)
    step_number, steps = number_or_rows(step, x)
    radius_number, radii = number_or_rows(radius, x)
    least, lower_bound, greatest, upper_bound = bounds(lower, upper, x)
    if mask is not None:
        mask = spread(mask if mask.dtype == torch.bool else mask != 0, x)
    numbers = (norm, step_number, steps, radius_number, radii, least, lower_bound, greatest, upper_bound)
    if velocity is None and out is None:
        return torch.ops.mdprop.pgd_step(x, grad, origin, *numbers, active, mask)  # type: ignore[no-any-return]
    read = (grad, origin, steps, radii, lower_bound, upper_bound, active, mask)
    _check.number("decay", decay)
    _check_written(velocity, out, x, read)
    if out is None:
        out = _check.empty_like_kernel(x)
    torch.ops.mdprop.pgd_step_out(x, grad, origin, *numbers, active, mask, velocity, float(decay), out)
    return out


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
        active: Tensor | None,
        mask: Tensor | None,
    ) -> Tensor:
        """Calls the op."""
        return torch.ops.mdprop.pgd_step(  # type: ignore[no-any-return]
            x, grad, origin, norm, step, steps, radius, radii, lower, lower_bound, upper, upper_bound, active, mask
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Marks the result as not differentiable."""
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[None, ...]:
        """Never called with a gradient, since the result requires none."""
        return (None,) * 14


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
    active: Tensor | None,
    mask: Tensor | None,
    velocity: Tensor | None = None,
    decay: float = 1.0,
    out: Tensor | None = None,
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
        active=active,
        mask=mask,
        velocity=velocity,
        decay=decay,
        out=out,
    )


def _default_out(*arguments: Any) -> None:
    _default(*arguments)


def _fake(x: Tensor, *args: Any) -> Tensor:
    return _check.empty_like_kernel(x)


def _fake_out(*args: Any) -> None:
    """Writes into its arguments; there is no result."""


_SCHEMA = (
    f"Tensor x, Tensor grad, Tensor origin, str norm, float step, Tensor? steps, {RADIUS_SCHEMA}, {BOX_SCHEMA}, "
    "Tensor? active, Tensor? mask"
)
# An op that is given a gradient formula may not change its arguments, hence the second one.
register_op("pgd_step", f"({_SCHEMA}) -> Tensor", _default, _fake)
register_op(
    "pgd_step_out", f"({_SCHEMA}, Tensor(a!)? velocity, float decay, Tensor(b!) out) -> ()", _default_out, _fake_out
)
register_gradient("pgd_step", PgdStepFunction)


def _check_points(x: Tensor, grad: Tensor, origin: Tensor) -> None:
    _check.like("grad", grad, "x", x)
    if not isinstance(origin, Tensor) or origin.dtype != torch.uint8:
        return _check.like("origin", origin, "x", x)
    _check_place("origin", origin, x)


def _check_place(name: str, value: Tensor, x: Tensor) -> None:
    """Raises ValueError unless ``value`` has the shape and device of ``x``."""
    if value.shape != x.shape:
        raise ValueError(f"{name}: expected the shape of x, {list(x.shape)}, got {list(value.shape)}")
    if value.device != x.device:
        raise ValueError(f"{name}: expected the device of x, {x.device}, got {value.device}")


def _check_choices(x: Tensor, active: Tensor | None, mask: Tensor | None) -> None:
    for name, value in (("active", active), ("mask", mask)):
        if value is not None:
            _check.tensor(name, value)
            if value.device != x.device:
                raise ValueError(f"{name}: expected the device of x, {x.device}, got {value.device}")
    if active is not None and active.dtype != torch.bool:
        raise TypeError(f"active: expected bool, got {active.dtype}")
    if active is not None and tuple(active.shape) != (x.shape[0],):
        raise ValueError(f"active: expected [N] with N = {x.shape[0]}, got {list(active.shape)}")
    if mask is not None:
        check_broadcasts("mask", mask, "x", x)


def _check_written(velocity: Tensor | None, out: Tensor | None, x: Tensor, read: tuple[Tensor | None, ...]) -> None:
    """Checks what is written against x and what is ``read`` beside it, and tells autograd of it."""
    memory_format = _check.kernel_memory_format(x)
    if velocity is not None:
        _check.like("velocity", velocity, "x", x)
        _check_layout("velocity", velocity, memory_format)
    if out is not None:
        _check_out(out, x)
        _check_layout("out", out, memory_format)
    if torch.compiler.is_compiling():
        return
    if velocity is not None:
        _written.check_apart("velocity", velocity, (x, *read, out), _OTHERS)
    if out is not None:
        _written.check_apart("out", out, (x, *read), _OTHERS, twin="x")
    _written.mark([tensor for tensor in (velocity, out) if tensor is not None])


def _check_out(out: Tensor, x: Tensor) -> None:
    _check.tensor("out", out)
    if out.dtype != x.dtype:
        allowed = (x.dtype, torch.bfloat16, torch.float16) if x.dtype == torch.float32 else (x.dtype,)
        if out.dtype not in allowed:
            raise TypeError(f"out: expected {' or '.join(map(str, allowed))} for {x.dtype} x, got {out.dtype}")
    _check_place("out", out, x)


def _check_layout(name: str, value: Tensor, memory_format: torch.memory_format) -> None:
    """Raises ValueError unless ``value`` can be written in place: dense as the result for x, and no gradient due."""
    _written.check_no_gradient(name, value)
    if not value.is_contiguous(memory_format=memory_format):
        raise ValueError(f"{name}: expected a dense tensor in {memory_format}, got strides {list(value.stride())}")
