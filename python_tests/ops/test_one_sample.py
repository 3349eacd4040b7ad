"""Batches of one sample, which no row of op_cases.py is about, and lengths that a tensor without dimensions holds."""

from __future__ import annotations

import pytest
import torch
from op_case import Sample
from op_case_multi_batch_norm import tables
from op_cases import OP_CASES
from op_checks import assert_near, assert_same_bits, moved

from mdprop_ext import ops

CASES = {case.name: case for case in OP_CASES}
BALLS = ("linf", "l2", "l1")


def one_sample(name: str, dtype: torch.dtype) -> Sample:
    """A call of the op with N = 1, and with one query and one point."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    numbers = dtype if dtype.is_floating_point else torch.float32
    x, y = (torch.rand(1, 3, 4, 5).to(numbers) for _ in range(2))
    rows, packed = torch.randn(1, 70).to(numbers), ops.pack_codes(torch.randn(2, 70))
    norm_tables = tables(3, 3, wide)
    ball = {"norm": "l2", "radius": torch.tensor([0.5], dtype=wide)}
    return {
        "multi_batch_norm": Sample(name, (x, *norm_tables, y), {"branch": [0, 1, 0], "training": True}),
        "multi_batch_norm_mixture": Sample(name, (x, *norm_tables, torch.tensor([[0.5, 0.2, 0.3]], dtype=wide))),
        "pgd_step": Sample(name, (x, torch.randn_like(x), y), {**ball, "step": 0.4}),
        "random_start": Sample(name, (x,), {**ball, "seed": 3}),
        "knn_topk": Sample(name, (rows, rows.flip(1), 3), {"metric": "euclidean"}),
        "hamming_topk": Sample(name, (packed[:1], packed[1:], 3), {"bits": 70}),
        "hamming_distance": Sample(name, (packed[:1], packed[1:]), {"bits": 70}),
        "relaxed_hamming_distance": Sample(name, (rows.tanh(), rows.flip(1).tanh())),
        "pack_codes": Sample(name, (rows if dtype == numbers else (rows > 0).to(dtype),)),
        "unpack_codes": Sample(name, (packed[:1],), {"bits": 70}),
    }[name]


@pytest.mark.parametrize(("name", "dtype"), [(name, dtype) for name, case in CASES.items() for dtype in case.dtypes])
def test_one_sample_equals_the_oracle_and_the_reference(name, dtype, device):
    case = CASES[name]
    sample = one_sample(name, dtype)
    found = case.call(case.function, moved(sample, device))
    relative, absolute = case.tolerance[dtype]
    assert_near(found, case.call(case.oracle, sample), (relative, absolute), "oracle")
    assert_near(found, case.call(case.reference, moved(sample, device)), (2 * relative, 2 * absolute), "reference")


@pytest.mark.parametrize("norm", BALLS)
@pytest.mark.parametrize("samples", [0, 1, 4])
def test_a_length_without_dimensions_is_a_number(norm, samples, device):
    x, grad, origin = (torch.rand(samples, 3, 5, device=device) for _ in range(3))
    step, radius = (torch.tensor(value, device=device) for value in (0.25, 0.5))
    found = (
        ops.pgd_step(x, grad, origin, norm=norm, step=step, radius=radius),
        ops.random_start(origin, norm=norm, radius=radius, seed=1),
    )
    expected = (
        ops.pgd_step(x, grad, origin, norm=norm, step=0.25, radius=0.5),
        ops.random_start(origin, norm=norm, radius=0.5, seed=1),
    )
    assert_same_bits(found, expected, norm)


def test_wrong_lengths_without_dimensions_are_named():
    x = torch.rand(2, 3)
    with pytest.raises(ValueError, match="step: expected finite values"):
        ops.pgd_step(x, x, x, norm="linf", step=torch.tensor(torch.inf), radius=0.1)
    with pytest.raises(ValueError, match=r"radius: expected a number or \[N\] with N = 2, got \[1, 2\]"):
        ops.pgd_step(x, x, x, norm="linf", step=0.1, radius=torch.ones(1, 2))
