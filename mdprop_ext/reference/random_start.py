"""random_start in plain PyTorch: the random words of the kernels, in int64 arithmetic, and torch's logarithm and sine.

So linf starts have the bits of the kernels' ones; l2 and l1 starts agree with them to rounding only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .pgd_step import clamp, linf_limits, per_sample, place, rounded_down, slack, store

_LENGTH_BLOCK = 0xFFFFFFFF


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
    """A random point of each ball, clamped to the box; see ``mdprop_ext.ops.random_start`` for the arguments."""
    if origin.numel() == 0:
        return torch.empty_like(origin)
    dtype = torch.float64 if origin.dtype == torch.float64 else torch.float32
    samples, size = len(origin), origin[0].numel()
    block = torch.arange((size + 3) // 4, device=origin.device)
    sample = torch.arange(samples, device=origin.device).unsqueeze(1)
    words = philox(block, sample, offset, seed)
    noise = torch.stack(_noise(norm, words), dim=-1).flatten(1)[:, :size]
    scale = rounded_down(per_sample(radius, origin, torch.float64), dtype)
    if norm != "linf":
        extra = exponential(philox(torch.full_like(block[:1], _LENGTH_BLOCK), sample, offset, seed)[0][:, 0]).double()
        wide = noise.double()
        length = (wide.square().sum(1) + 2 * extra).sqrt() if norm == "l2" else wide.abs().sum(1) + extra
        scale = (scale.double() * slack(dtype) / per_sample(length, origin, torch.float64)).to(dtype)
    delta = scale * noise.reshape(origin.shape).to(dtype)
    wide = origin.to(dtype)
    if norm == "linf":
        low, high = linf_limits(wide, scale)
        value = torch.clamp(wide + delta, low, high)
    else:
        value, low, high = place(clamp(wide + delta, lower, upper), delta.abs(), wide)
    return store(value, low, high, wide, lower, upper, origin.dtype)


def philox(block: Tensor, sample: Tensor, offset: int, seed: int) -> tuple[Tensor, ...]:
    """Philox4x32-10 with counters (block, sample, offset) and key seed.

    ``block`` is ``[K]``, ``sample`` ``[N, 1]``; the result is four words in [0, 2^32), each int64 ``[N, K]``.
    """
    low = 0xFFFFFFFF
    shape = (len(sample), len(block))
    block, sample = block.expand(shape), sample.expand(shape)
    counter = [block, sample, torch.full_like(block, offset & low), torch.full_like(block, offset >> 32 & low)]
    key = [seed & low, seed >> 32 & low]
    for _ in range(10):
        # int64 products wrap, but all of their 64 bits are right.
        even, odd = counter[0] * 0xD2511F53, counter[2] * 0xCD9E8D57
        counter = [
            (odd >> 32 & low) ^ counter[1] ^ key[0],
            odd & low,
            (even >> 32 & low) ^ counter[3] ^ key[1],
            even & low,
        ]
        key = [(key[0] + 0x9E3779B9) & low, (key[1] + 0xBB67AE85) & low]
    return tuple(counter)


def exponential(word: Tensor) -> Tensor:
    """Exponential values of mean 1 in float32, from the upper 31 bits of words."""
    return -torch.log(((word >> 1).float() + 0.5) * 2.0**-31)


def _noise(norm: str, words: tuple[Tensor, ...]) -> list[Tensor]:
    """Four float32 values of noise from four words."""
    if norm == "linf":
        return [(2 * (word >> 8) + 1 - 2**24).float() * 2.0**-24 for word in words]
    if norm == "l1":
        return [torch.where(word % 2 == 1, -exponential(word), exponential(word)) for word in words]
    noise = []
    for word, turn in (words[:2], words[2:]):
        angle = turn.double() * (2 * math.pi / 2**32)
        length = (2 * exponential(word)).sqrt()
        noise += [length * angle.cos().float(), length * angle.sin().float()]
    return noise
