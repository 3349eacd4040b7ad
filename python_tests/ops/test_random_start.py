"""random_start: known answers of its generator, its distributions, and what it does not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.random_start import philox4x32

from mdprop_ext import ops
from mdprop_ext.reference.random_start import philox

NORMS = ("linf", "l2", "l1")
# Counter, key and result of the published known-answer tests of Philox4x32-10.
KNOWN = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)


def length(delta: torch.Tensor, norm: str) -> torch.Tensor:
    return delta.double().flatten(1).norm(p={"linf": float("inf"), "l2": 2, "l1": 1}[norm], dim=1)


def points(norm: str, samples: int, size: int, **options) -> torch.Tensor:
    """Points of the unit ball, without a box."""
    box = {"lower": -2.0, "upper": 2.0}
    return ops.random_start(torch.zeros(samples, size), norm=norm, radius=1.0, seed=5, **box, **options)


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_known_answers_of_the_generator(counter, key, words):
    block, sample, low, high = counter
    ours = philox(torch.tensor([block]), torch.tensor([[sample]]), low | high << 32, key[0] | key[1] << 32)
    assert tuple(int(word) for word in ours) == words
    assert tuple(philox4x32(np.array(counter).reshape(4, 1), key).ravel()) == words


def test_uniform_values_come_straight_from_the_words():
    """Four values a counter (block, sample, offset): the 24 upper bits of each word, centred."""
    offset, seed = 0x0370734413198A2E, -0x299F31D0A4093822
    result = ops.random_start(
        torch.zeros(3, 10, dtype=torch.float64), norm="linf", radius=1.0, lower=-1.0, seed=seed, offset=offset
    )
    for n in range(3):
        for i in range(10):
            counter = np.array([i // 4, n, offset % 2**32, offset >> 32]).reshape(4, 1)
            word = int(philox4x32(counter, (seed % 2**32, seed % 2**64 >> 32))[i % 4, 0])
            assert result[n, i].item() == pytest.approx((2 * (word >> 8) + 1 - 2**24) / 2**24, abs=1e-15)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [1, 2, 3, 30])
def test_points_are_uniform_in_the_ball(norm, size):
    """The share of the ball of size M within radius r is r^M, in every direction alike."""
    samples = 20000
    drawn = points(norm, samples, size).double()
    inside = length(drawn, norm) ** size
    # Kolmogorov's distance to the uniform distribution; 1.95 / sqrt(n) is passed once in a thousand draws.
    ordered = inside.sort().values
    distance = (ordered - torch.arange(1, samples + 1) / samples).abs().max().item()
    assert distance < 1.95 / math.sqrt(samples)
    deviation = drawn.std(dim=0)
    assert (drawn.mean(dim=0).abs() < 5 * deviation / math.sqrt(samples)).all()
    second = {"linf": 1 / 3, "l2": 1 / (size + 2), "l1": 2 / ((size + 1) * (size + 2))}[norm]
    torch.testing.assert_close(drawn.square().mean(dim=0), torch.full((size,), second).double(), rtol=0.08, atol=0)
    correlation = torch.corrcoef(drawn.T) if size > 1 else torch.ones(1, 1)
    assert ((correlation - torch.eye(size)).abs() < 5 / math.sqrt(samples)).all()


def test_angles_are_uniform():
    drawn = points("l2", 20000, 2).double()
    angle = (torch.atan2(drawn[:, 1], drawn[:, 0]) / (2 * math.pi) + 0.5).sort().values
    assert (angle - torch.arange(1, 20001) / 20000).abs().max() < 1.95 / math.sqrt(20000)


@pytest.mark.parametrize("norm", NORMS)
def test_samples_seeds_and_offsets_differ(norm):
    drawn = [points(norm, 50, 20), points(norm, 50, 20, offset=1), points(norm, 50, 20, offset=1 << 40)]
    drawn.append(ops.random_start(torch.zeros(50, 20), norm=norm, radius=1.0, lower=-2.0, upper=2.0, seed=6))
    rows = torch.cat(drawn)
    assert len({tuple(row.tolist()) for row in rows}) == 200
    assert (torch.corrcoef(rows) - torch.eye(200)).abs().max() < 0.95


@pytest.mark.parametrize("norm", NORMS)
def test_the_noise_does_not_depend_on_batch_format_or_type(norm):
    origin = torch.full((4, 3, 11, 5), 0.5)
    options = {"norm": norm, "radius": 0.1, "seed": 9, "offset": 2}
    result = ops.random_start(origin, **options)
    assert torch.equal(ops.random_start(origin[:2], **options), result[:2])
    assert torch.equal(ops.random_start(origin.flatten(1), **options).view(origin.shape), result)
    last = ops.random_start(origin.contiguous(memory_format=torch.channels_last), **options)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, result)
    for dtype, close in ((torch.float64, 1e-7), (torch.bfloat16, 2**-8), (torch.float16, 2**-11)):
        torch.testing.assert_close(ops.random_start(origin.to(dtype), **options).float(), result, rtol=0, atol=close)


@given(
    norm=st.sampled_from(NORMS),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    radius=st.floats(0, 3),
    size=st.sampled_from([1, 5, 1100]),
    seed=st.integers(-(2**63), 2**63 - 1),
)
def test_the_result_obeys_ball_and_box(norm, dtype, radius, size, seed):
    origin = torch.rand(3, size, generator=torch.Generator().manual_seed(0)).to(dtype)
    result = ops.random_start(origin, norm=norm, radius=radius, lower=0.0, upper=float(origin.max()), seed=seed)
    assert (length(result.double() - origin.double(), norm) <= radius * (1 + 2**-22)).all()
    assert result.min() >= 0
    assert result.max() <= origin.max()


@pytest.mark.parametrize("norm", NORMS)
def test_the_box_wins_and_nan_stays(norm):
    result = ops.random_start(torch.tensor([[2.0, -1.0, float("nan")]]), norm=norm, radius=0.1, seed=0)
    assert result[0, :2].tolist() == [1.0, 0.0]
    assert result[0, 2].isnan()
