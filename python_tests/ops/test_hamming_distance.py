"""What is special about hamming_distance: relaxed and packed codes agree, and gradients keep their dtype."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_case import FLOATING
from oracles.hamming_topk import hamming_distance_oracle

from mdprop_ext import ops


@given(st.integers(1, 200), st.integers(0, 20), st.integers(0, 90))
def test_packed_and_relaxed_signs_agree(bits, num_queries, num_codes):
    queries, codes = (torch.randint(0, 2, (rows, bits)) * 2.0 - 1 for rows in (num_queries, num_codes))
    packed = ops.pack_codes(queries), ops.pack_codes(codes)
    distances = ops.hamming_distance(*packed, bits=bits)
    assert torch.equal(distances, hamming_distance_oracle(*packed, bits=bits))
    assert torch.equal(ops.hamming_distance(queries, codes), distances.float())


def test_agrees_with_the_search():
    codes = torch.randint(-(2**63), 2**63 - 1, (300, 3))
    distances = ops.hamming_distance(codes[:50], codes, bits=170)
    found, indices = ops.hamming_topk(codes[:50], codes, 300, bits=170)
    assert torch.equal(distances.gather(1, indices), found)


def test_every_code_length():
    for bits in range(1, 131):
        queries, codes = (torch.randint(-(2**63), 2**63 - 1, (rows, -(-bits // 64))) for rows in (3, 40))
        expected = hamming_distance_oracle(queries, codes, bits=bits)
        assert torch.equal(ops.hamming_distance(queries, codes, bits=bits), expected)


@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("autocast", [False, True])
def test_dtypes_of_results_and_gradients(dtype, autocast):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    queries, codes = (torch.tanh(torch.randn(rows, 24)).to(dtype).requires_grad_() for rows in (5, 7))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        distances = ops.hamming_distance(queries, codes)
        weights = torch.randn(5, 7, dtype=wide)
        gradients = torch.autograd.grad(distances, (queries, codes), weights)
    assert distances.dtype == wide
    expected = -0.5 * weights.double() @ codes.double(), -0.5 * weights.double().T @ queries.double()
    for gradient, wanted in zip(gradients, expected, strict=True):
        assert gradient.dtype == dtype
        # One rounding to the storage type, after sums in the wide one.
        torch.testing.assert_close(gradient.double(), wanted, rtol=torch.finfo(dtype).eps, atol=1e-5)


def test_only_the_wanted_gradient_is_computed():
    queries, codes = torch.randn(3, 8, requires_grad=True), torch.randn(4, 8)
    ops.hamming_distance(queries, codes).sum().backward()
    torch.testing.assert_close(queries.grad, (-0.5 * codes.sum(0)).expand(3, -1))
    assert codes.grad is None
