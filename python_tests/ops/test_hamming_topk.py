"""What is special about hamming_topk: exact ties, invariances, and every instruction set."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.hamming_topk import hamming_topk_oracle

from mdprop_ext import ops
from mdprop_ext.ops._register import load_extension


@st.composite
def searches(draw: st.DrawFn):
    """Queries, codes, k and bits, with so few different bits that ties are the rule."""
    bits = draw(st.integers(1, 140))
    distinct = draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    palette = torch.rand(distinct, bits, generator=generator) > 0.5
    sizes = draw(st.integers(1, 30)), draw(st.integers(0, 900))
    queries, codes = (ops.pack_codes(palette[torch.randint(0, distinct, (n,), generator=generator)]) for n in sizes)
    return queries, codes, draw(st.integers(1, 1000)), bits


@given(searches())
@settings(max_examples=40)
def test_ties_go_to_the_lowest_index(search):
    queries, codes, k, bits = search
    distances, indices = ops.hamming_topk(queries, codes, k, bits=bits)
    expected = hamming_topk_oracle(queries, codes, k, bits=bits)
    assert torch.equal(distances, expected[0])
    assert torch.equal(indices, expected[1])


@given(searches())
@settings(max_examples=20)
def test_flipping_a_bit_of_everything_changes_nothing(search):
    queries, codes, k, bits = search
    flip = torch.randint(-(2**63), 2**63 - 1, (1, queries.shape[1]))
    flipped = ops.hamming_topk(queries ^ flip, codes ^ flip, k, bits=bits)
    for result, wanted in zip(flipped, ops.hamming_topk(queries, codes, k, bits=bits), strict=True):
        assert torch.equal(result, wanted)


@pytest.mark.parametrize("num_queries", [1, 40])
def test_all_codes_in_order_when_k_is_n(num_queries):
    codes = ops.pack_codes(torch.rand(2000, 70) > 0.5)
    distances, indices = ops.hamming_topk(codes[:num_queries], codes, 2000, bits=70)
    assert torch.equal(indices.sort(dim=1).values, torch.arange(2000).expand(num_queries, -1))
    keys = distances.long() * 2000 + indices
    assert bool((keys.diff(dim=1) > 0).all())
    assert torch.equal(indices[:, 0], torch.arange(num_queries))


def test_unpack_inverts_pack():
    for bits in (1, 63, 64, 65, 190):
        codes = torch.rand(9, bits) > 0.5
        assert torch.equal(ops.unpack_codes(ops.pack_codes(codes), bits=bits), codes)


def test_packed_codes_carry_no_gradient():
    codes = torch.randn(3, 70, requires_grad=True)
    assert not ops.pack_codes(codes).requires_grad
    assert not torch.ops.mdprop.pack_codes(codes).requires_grad


PROGRAM = """
import hashlib, torch
from mdprop_ext import ops
torch.manual_seed(5)
digest = hashlib.sha256()
for bits in (12, 64, 130, 256, 700):
    values = torch.randn(3000, bits)
    codes = ops.pack_codes(values)
    for queries in (codes[:2], codes[:40]):
        for result in ops.hamming_topk(queries, codes, 60, bits=bits):
            digest.update(result.numpy().tobytes())
    digest.update(ops.unpack_codes(codes, bits=bits).numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.mark.skipif(load_extension() is not None, reason="needs the compiled kernels")
def test_every_instruction_set_gives_the_same_result():
    results = {}
    for isa in ("baseline", "avx2", "avx512"):
        environment = {**os.environ, "MDPROP_CPU_ISA": isa}
        run = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
        if run.returncode != 0 and "not supported here" in run.stderr:
            continue
        assert run.returncode == 0, run.stderr
        results[isa] = run.stdout.strip()
    assert len(results["baseline"]) == hashlib.sha256().digest_size * 2
    assert len(set(results.values())) == 1, results
