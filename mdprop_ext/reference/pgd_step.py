"""pgd_step in plain PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


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
    """One projected ascent step; see ``mdprop_ext.ops.pgd_step`` for the arguments.

    Every intermediate result is a tensor of the size of ``x``, computed in float32, or in float64 for float64 inputs.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    target = x.dtype if out is None else out.dtype
    shown = torch.ones((), dtype=torch.bool, device=x.device) if mask is None else mask != 0
    moving = shown if active is None else shown & per_sample(active, x, torch.bool)
    # Where the mask is 0 a point at rest in the box stands for the value, which adds nothing to a norm.
    centre = origin.to(dtype) / 255 if origin.dtype == torch.uint8 else origin.to(dtype)
    rest = clamp(torch.zeros_like(centre), lower, upper)
    centre, current = torch.where(shown, centre, rest), torch.where(shown, x.to(dtype), rest)
    ascent = torch.where(shown, grad.to(dtype), 0)
    if velocity is not None:
        _update_velocity(velocity, ascent, decay, moving, shown)
        ascent = torch.where(shown, velocity.to(dtype), 0)
    # What the values of the result's type nearest to origins of another type lie away counts against the radius.
    rounding = _rounding_distance(centre, lower, upper, target) if target not in (dtype, origin.dtype) else None
    advance: dict[str, Callable[..., tuple[Tensor, Tensor, Tensor]]] = {"linf": _linf, "l2": _l2, "l1": _l1}
    reach = rounded_down(per_sample(radius, x, torch.float64), dtype)
    value, low, high = advance[norm](current, ascent, centre, per_sample(step, x, dtype), reach, lower, upper, rounding)
    result = torch.where(moving, store(value, low, high, centre, lower, upper, target), x.to(target))
    if out is not None:
        return out.copy_(result)
    # torch.where takes the memory format of a full mask, not of x.
    return result if result.stride() == x.stride() else torch.empty_like(x, dtype=target).copy_(result)


def store(
    value: Tensor,
    low: Tensor,
    high: Tensor,
    origin: Tensor,
    lower: float | Tensor,
    upper: float | Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """Clamps to the box and rounds to ``dtype`` within ``[low, high]``, or as near to the origin as the dtype can."""
    value = clamp(value, lower, upper)
    if value.dtype == dtype:
        return value
    low, high = clamp(low, lower, upper), clamp(high, lower, upper)
    rounded = _round_between(value, low, high, dtype)
    wide = rounded.to(value.dtype)
    centre = clamp(origin, lower, upper)
    return torch.where((wide < low) | (wide > high), _round_in_box(centre, lower, upper, dtype), rounded)


def place(value: Tensor, limit: Tensor, origin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Moves values that rounding took further than ``limit`` towards the origin; with the interval between the two."""
    value = torch.where(value - origin > limit, torch.maximum(_slightly_below(value), origin), value)
    value = torch.where(origin - value > limit, torch.minimum(-_slightly_below(-value), origin), value)
    return value, torch.minimum(value, origin), torch.maximum(value, origin)


def linf_limits(origin: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest value at most ``radius`` from the origin."""
    high, low = origin + radius, origin - radius
    high = torch.where(high - origin > radius, torch.maximum(_slightly_below(high), origin), high)
    low = torch.where(origin - low > radius, torch.minimum(-_slightly_below(-low), origin), low)
    return low, high


def slack(dtype: torch.dtype) -> float:
    """The factor that keeps roundings of values and sums inside the ball."""
    return 1.0 - (2.0**-22 if dtype == torch.float32 else 2.0**-47)


def per_sample(value: float | Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    """A number, or ``[N]`` shaped to broadcast over the samples of ``x``."""
    if isinstance(value, Tensor):
        return value.to(dtype).reshape(-1, *[1] * (x.dim() - 1))
    return torch.tensor(value, dtype=dtype, device=x.device)


def rounded_down(value: Tensor, dtype: torch.dtype) -> Tensor:
    """``value`` in ``dtype``, never above itself."""
    rounded = value.to(dtype)
    return torch.where(rounded.double() > value, _next(rounded, -math.inf), rounded)


def clamp(value: Tensor, lower: float | Tensor, upper: float | Tensor) -> Tensor:
    """``torch.clamp`` in the dtype of ``value``."""
    if isinstance(lower, Tensor) or isinstance(upper, Tensor):
        low, high = (torch.as_tensor(bound, dtype=value.dtype, device=value.device) for bound in (lower, upper))
        return torch.clamp(value, low, high)
    return torch.clamp(value, lower, upper)


def _linf(
    x: Tensor, grad: Tensor, origin: Tensor, step: Tensor, radius: Tensor, *unused: object
) -> tuple[Tensor, Tensor, Tensor]:
    low, high = linf_limits(origin, radius)
    return torch.clamp(x + step * grad.sign(), low, high), low, high


def _l2(
    x: Tensor,
    grad: Tensor,
    origin: Tensor,
    step: Tensor,
    radius: Tensor,
    lower: float | Tensor,
    upper: float | Tensor,
    rounding: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    unit, norm = _scaled_norm(grad)
    scale = torch.where((norm > 0) & norm.isfinite(), step / norm, 0).to(x.dtype)
    moved = torch.where(scale == 0, x, x + scale * (unit * grad))
    delta = (moved - origin).nan_to_num(nan=math.nan)  # the largest finite value for infinity
    unit, norm = _scaled_norm(delta.nan_to_num(nan=0.0))
    limit = radius.double()
    if rounding is not None:
        limit = (limit.square() - _norm(rounding).square()).clamp(min=0).sqrt()
    outside = norm > limit * unit
    scale = torch.where(outside, limit * slack(x.dtype) / norm, 0).to(x.dtype)
    pulled = scale * (unit * delta)
    value = torch.where(origin.isnan(), origin, torch.where(outside, origin + pulled, moved))
    return place(value, torch.where(outside, pulled.abs(), math.inf), origin)


def _l1(
    x: Tensor,
    grad: Tensor,
    origin: Tensor,
    step: Tensor,
    radius: Tensor,
    lower: float | Tensor,
    upper: float | Tensor,
    rounding: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    moved = x + step * grad.sign()
    centre = clamp(origin, lower, upper)
    delta = moved - centre
    room = _rows(torch.where(delta > 0, upper - centre, centre - lower).double()).nan_to_num(nan=0.0, posinf=math.inf)
    reach = _rows(delta.abs().double()).nan_to_num(nan=0.0, posinf=torch.finfo(x.dtype).max)
    used = (origin - centre).abs().double() + (0 if rounding is None else rounding.double())
    left = _rows(radius.double().expand(x.shape))[:, :1] - _rows(used).nansum(dim=1, keepdim=True)
    pull = _l1_pull(reach, room, left.clamp(min=0) * slack(x.dtype)).to(x.dtype).reshape(x.shape)
    inside = per_sample((torch.minimum(reach, room).sum(dim=1, keepdim=True) <= left), x, torch.bool)
    value = torch.where(inside, moved, centre + delta.sign() * pull)
    return place(torch.where(delta.isnan(), delta, value), torch.where(inside, math.inf, pull), centre)


def _l1_pull(reach: Tensor, room: Tensor, target: Tensor) -> Tensor:
    """``min(max(reach - t, 0), room)`` for the ``t >= 0`` of each row at which these add up to ``target``.

    Going down, a pull starts to grow at ``t = reach`` and stops at ``reach - room``. The pulls are interpolated between
    the two of these points around ``t``, since ``t`` itself may be too large to be stored well.
    """
    points = torch.cat([reach, (reach - room).clamp(min=0)], dim=1).sort(dim=1, descending=True).values

    def pull(at: Tensor) -> Tensor:
        return torch.minimum((reach - points.gather(1, at)).clamp(min=0), room)

    def mean(pulls: Tensor) -> Tensor:
        return (pulls / reach.shape[1]).sum(dim=1, keepdim=True)  # finite, where a sum need not be

    wanted = target / reach.shape[1]
    first = torch.zeros_like(target, dtype=torch.int64)
    last = torch.full_like(first, points.shape[1] - 1)
    for _ in range(points.shape[1].bit_length()):
        middle = (first + last) // 2
        below = mean(pull(middle)) < wanted
        first, last = torch.where(below, middle, first), torch.where(below, last, middle)
    least, most = pull(first), pull(last)
    start, end = mean(least), mean(most)
    share = torch.where(end > start, (wanted - start) / (end - start), 0).clamp(0, 1)
    return least + share * (most - least)


def _update_velocity(velocity: Tensor, grad: Tensor, decay: float, moving: Tensor, shown: Tensor) -> None:
    """Changes ``velocity`` in place where it moves; the mean is over the positions that the mask shows."""
    count = _rows(shown.expand(grad.shape)).sum(dim=1)
    mean = per_sample(_rows(grad.double().abs()).sum(dim=1) / count, grad, torch.float64)
    added = torch.where((mean > 0) & mean.isfinite(), grad / mean, 0).to(grad.dtype)
    velocity.copy_(torch.where(moving, decay * velocity.to(grad.dtype) + added, velocity))


def _rows(x: Tensor) -> Tensor:
    """``[N, *]`` as ``[N, M]``."""
    return x.unsqueeze(-1).flatten(1)


def _norm(x: Tensor) -> Tensor:
    """L2 norm of each sample in float64, shaped to broadcast over the samples."""
    return per_sample(torch.linalg.vector_norm(_rows(x), dim=1, dtype=torch.float64), x, torch.float64)


def _scaled_norm(x: Tensor) -> tuple[Tensor, Tensor]:
    """A power of two for each sample, and the norm of the sample times it, which neither overflows nor vanishes."""
    if x.numel() == 0:
        return torch.ones_like(x), _norm(x)
    usual, most = (60, 120) if x.dtype == torch.float32 else (400, 600)
    exponent = torch.frexp(_rows(x).abs().amax(dim=1)).exponent
    exponent = torch.where(exponent.abs() > usual, -exponent, 0).clamp(-most, most)
    unit = per_sample(torch.ldexp(torch.ones_like(exponent, dtype=x.dtype), exponent), x, x.dtype)
    return unit, _norm(x * unit)


def _slightly_below(value: Tensor) -> Tensor:
    """The value moved down by one or two units in its last place: enough where rounding took it outwards."""
    return value - value.abs() * (2.0**-23 if value.dtype == torch.float32 else 2.0**-52)


def _round_between(value: Tensor, low: Tensor, high: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounds to ``dtype`` without leaving ``[low, high]``, if that holds a value of it."""
    rounded = value.to(dtype)
    wide = rounded.to(value.dtype)  # bounds without dimensions would be compared in the narrower type
    down, up = _next(rounded, -math.inf), _next(rounded, math.inf)
    return torch.where(wide > high, down, torch.where(wide < low, up, rounded))


def _round_in_box(value: Tensor, lower: float | Tensor, upper: float | Tensor, dtype: torch.dtype) -> Tensor:
    low, high = (torch.as_tensor(bound, dtype=value.dtype, device=value.device) for bound in (lower, upper))
    return _round_between(value, low, high, dtype)


def _rounding_distance(origin: Tensor, lower: float | Tensor, upper: float | Tensor, dtype: torch.dtype) -> Tensor:
    """How far the values of ``dtype`` nearest to the clamped origins are from them; 0 for NaN."""
    centre = clamp(origin, lower, upper)
    distance = (_round_in_box(centre, lower, upper, dtype).to(origin.dtype) - centre).abs()
    return torch.where(distance.isnan(), 0, distance)


def _next(value: Tensor, towards: float) -> Tensor:
    """The neighbouring value of the same dtype; torch.nextafter lacks float16."""
    if value.dtype == torch.float16:
        neighbour = np.nextafter(value.cpu().numpy(), np.float16(towards))
        return torch.from_numpy(neighbour).to(value.device)
    return torch.nextafter(value, torch.full_like(value, towards))
