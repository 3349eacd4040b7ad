"""What is special about hamming_topk and the codecs: exact ties, groups, many neighbours, every instruction set."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.hamming_topk import hamming_topk_oracle, pack_codes_oracle

from mdprop_ext import ops
from mdprop_ext.info import collect
from mdprop_ext.ops._register import load_extension
from mdprop_ext.ops.hamming_topk import NUMBERS


def assert_same(results, expected):
    for result, wanted in zip(results, expected, strict=True):
        assert torch.equal(result, wanted)


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
    assert_same(ops.hamming_topk(queries, codes, k, bits=bits), hamming_topk_oracle(queries, codes, k, bits=bits))


@st.composite
def offsets(draw: st.DrawFn, count: int, groups: int):
    """Offsets [groups + 1] of `count` rows; many groups are empty."""
    inner = draw(st.lists(st.integers(0, count), min_size=groups - 1, max_size=groups - 1))
    return torch.tensor([0, *sorted(inner), count])


@given(searches(), st.integers(1, 8), st.data())
def test_groups_are_searches_of_their_own(search, count, data):
    queries, codes, k, bits = search
    groups = tuple(data.draw(offsets(rows.shape[0], count)) for rows in (queries, codes))
    distances, indices = ops.hamming_topk(queries, codes, k, bits=bits, groups=groups)
    for group in range(count):
        rows, seen = (slice(*side[group : group + 2].tolist()) for side in groups)
        alone = ops.hamming_topk(queries[rows], codes[seen], k, bits=bits)
        assert torch.equal(distances[rows], alone[0])
        assert torch.equal(indices[rows], torch.where(alone[1] < 0, -1, alone[1] + seen.start))


@given(searches())
@settings(max_examples=20)
def test_flipping_a_bit_of_everything_changes_nothing(search):
    queries, codes, k, bits = search
    flip = torch.randint(-(2**63), 2**63 - 1, (1, queries.shape[1]))
    flipped = ops.hamming_topk(queries ^ flip, codes ^ flip, k, bits=bits)
    assert_same(flipped, ops.hamming_topk(queries, codes, k, bits=bits))


# The last two keep so many neighbours that few queries fit a tile, too few for slices or for a cut by codes.
@pytest.mark.parametrize(
    ("num_queries", "num_codes", "k"), [(40, 5000, 2048), (20, 20_000, 14_000), (4, 40_000, 25_000)]
)
def test_many_neighbours(num_queries, num_codes, k):
    codes = torch.randint(0, 2**12, (num_codes, 1))
    queries = torch.randint(0, 2**12, (num_queries, 1))
    assert_same(ops.hamming_topk(queries, codes, k, bits=12), hamming_topk_oracle(queries, codes, k, bits=12))


@pytest.mark.parametrize("num_queries", [2, 33])
def test_every_code_length(num_queries):
    for bits in range(1, 131):
        queries, codes = (torch.rand(rows, bits) > 0.5 for rows in (num_queries, 150))
        search = ops.pack_codes(queries), ops.pack_codes(codes), 20
        assert_same(ops.hamming_topk(*search, bits=bits), hamming_topk_oracle(*search, bits=bits))
        assert torch.equal(ops.unpack_codes(search[1], bits=bits), codes)


@pytest.mark.parametrize("bits", [8, 64, 128, 200])
@pytest.mark.parametrize("num_queries", [3, 40])
def test_faiss_gives_the_same_distances_and_nearer_ids(bits, num_queries):
    """Among the codes at the last distance faiss may keep others than the first; nearer ones are all there."""
    faiss = pytest.importorskip("faiss")
    codes = ops.pack_codes((torch.rand(60, bits) > 0.5)[torch.randint(0, 60, (3000,))])
    rows = codes.view(torch.uint8)[:, : bits // 8].contiguous().numpy()
    index = faiss.IndexBinaryFlat(bits)
    index.add(rows)
    found, ids = (torch.from_numpy(result) for result in index.search(rows[:num_queries], 200))
    distances, indices = ops.hamming_topk(codes[:num_queries], codes, 200, bits=bits)
    assert torch.equal(distances, found)
    cut = distances[:, -1:]
    for ours, theirs, near in zip(indices, ids, distances < cut, strict=True):
        assert torch.equal(ours[near].sort().values, theirs[near].sort().values)


def test_groups_compile_to_one_graph():
    codes = torch.randint(-(2**63), 2**63 - 1, (50, 1))
    compiled = torch.compile(ops.hamming_topk, backend="aot_eager", fullgraph=True)
    for middle in (10, 20):
        groups = torch.tensor([0, middle, 30]), torch.tensor([0, middle, 50])
        expected = ops.hamming_topk(codes[:30], codes, 4, bits=64, groups=groups)
        assert_same(compiled(codes[:30], codes, 4, bits=64, groups=groups), expected)


def test_the_raw_op_refuses_wrong_offsets():
    codes, good = torch.zeros(4, 1, dtype=torch.int64), torch.tensor([0, 4])
    for bad in ([0, 5], [1, 4], [0, 5, 4], [-1, 4]):
        with pytest.raises(RuntimeError, match="point_offsets"):
            torch.ops.mdprop.hamming_topk(
                codes, codes, 1, 64, torch.tensor([0] * (len(bad) - 1) + [4]), torch.tensor(bad)
            )
    with pytest.raises(RuntimeError, match="given together"):
        torch.ops.mdprop.hamming_topk(codes, codes, 1, 64, good, None)


@pytest.mark.parametrize("num_queries", [1, 40])
def test_all_codes_in_order_when_k_is_n(num_queries):
    codes = ops.pack_codes(torch.rand(2000, 70) > 0.5)
    distances, indices = ops.hamming_topk(codes[:num_queries], codes, 2000, bits=70)
    assert torch.equal(indices.sort(dim=1).values, torch.arange(2000).expand(num_queries, -1))
    keys = distances.long() * 2000 + indices
    assert bool((keys.diff(dim=1) > 0).all())
    assert torch.equal(indices[:, 0], torch.arange(num_queries))


@given(st.sampled_from(NUMBERS), st.integers(1, 200), st.integers(0, 40), st.integers(0, 2**31))
@settings(max_examples=60)
def test_unpack_inverts_pack(dtype, bits, rows, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor([0.0, -0.0, 1.0, -1.0, 3.0, float("nan"), float("inf"), -float("inf")])
    if not dtype.is_floating_point:
        values = values[:5]
    codes = values[torch.randint(0, values.shape[0], (rows, bits), generator=generator)]
    if dtype == torch.uint8:
        codes = codes.abs()
    packed = ops.pack_codes(codes.to(dtype))
    assert torch.equal(packed, pack_codes_oracle(codes.to(dtype)))
    assert torch.equal(ops.unpack_codes(packed, bits=bits), codes.to(dtype) > 0)


@given(st.integers(1, 200), st.integers(0, 40))
def test_pack_inverts_unpack(bits, rows):
    words = torch.randint(-(2**63), 2**63 - 1, (rows, -(-bits // 64)))
    padding = -1 << bits % 64 if bits % 64 else 0
    words[:, -1] &= ~padding
    assert torch.equal(ops.pack_codes(ops.unpack_codes(words, bits=bits)), words)


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
    groups = torch.tensor([0, 3, 3, 40]), torch.tensor([0, 900, 2500, 3000])
    for result in ops.hamming_topk(codes[:40], codes, 60, bits=bits, groups=groups):
        digest.update(result.numpy().tobytes())
    digest.update(ops.hamming_distance(codes[:70], codes, bits=bits).numpy().tobytes())
    digest.update(ops.unpack_codes(codes, bits=bits).numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.mark.skipif(load_extension() is not None or collect()["extension"]["emulated"], reason="needs the CPU kernels")
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
