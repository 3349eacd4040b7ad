"""The oracle of random_start: Philox in unsigned 64-bit integers, everything else in float64."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

MASK = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


def philox4x32(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Ten rounds on counters ``[4, *]`` of 32-bit words."""
    c = [word.astype(np.uint64) for word in counter]
    k0, k1 = key
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(b >> HALF) ^ c[1] ^ np.uint64(k0), b & MASK, (a >> HALF) ^ c[3] ^ np.uint64(k1), a & MASK]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return np.stack(c)


def exponential(words: np.ndarray) -> np.ndarray:
    # The argument is rounded to float32, as the kernel has it.
    uniform = ((words >> np.uint64(1)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-31)
    return -np.log(uniform.astype(np.float64))


def unit_point(norm: str, size: int, sample: int, seed: int, offset: int) -> np.ndarray:
    """A point of the unit ball of ``size`` dimensions."""
    key = (seed % 2**32, seed % 2**64 >> 32)
    blocks = np.arange((size + 3) // 4)
    tail = [np.full_like(blocks, word) for word in (sample, offset % 2**32, offset % 2**64 >> 32)]
    words = philox4x32(np.stack([blocks, *tail]), key)
    last = exponential(philox4x32(np.array([[2**32 - 1], *([t[0]] for t in tail)]), key)[0])
    if norm == "linf":
        return ((2 * (words >> np.uint64(8)).astype(np.int64) + 1 - 2**24) * 2.0**-24).T.ravel()[:size]
    if norm == "l1":
        noise = (np.where(words % 2 == 1, -1, 1) * exponential(words)).T.ravel()[:size]
        return noise / (np.abs(noise).sum() + last)
    length, angle = np.sqrt(2 * exponential(words[::2])), 2 * np.pi * words[1::2] / 2**32
    noise = np.stack([length * np.cos(angle), length * np.sin(angle)], 1).reshape(4, -1).T.ravel()[:size]
    return noise / np.sqrt((noise**2).sum() + 2 * last)


def random_start_oracle(
    origin: Tensor,
    *,
    norm: str,
    radius: float | Tensor,
    lower: float | Tensor = 0.0,
    upper: float | Tensor = 1.0,
    seed: int,
    offset: int = 0,
) -> Tensor:
    lower = torch.as_tensor(lower, dtype=torch.float64).expand(origin.shape)
    upper = torch.as_tensor(upper, dtype=torch.float64).expand(origin.shape)
    result = origin.double().contiguous()
    for n in range(origin.shape[0]):
        reach = float(radius[n] if isinstance(radius, Tensor) else radius)
        noise = torch.from_numpy(unit_point(norm, origin[n].numel(), n, seed, offset)).reshape(origin.shape[1:])
        result[n] = torch.minimum(torch.maximum(result[n] + reach * noise, lower[n]), upper[n])
    return result
