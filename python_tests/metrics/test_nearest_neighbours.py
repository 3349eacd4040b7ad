"""Nearest neighbours, by the definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdprop_ext.metrics import nearest_neighbours


@given(seed=st.integers(0, 999), queries=st.integers(1, 6), references=st.integers(2, 9), leave_out=st.booleans())
def test_are_the_nearest_others_by_index_where_distances_are_equal(seed, queries, references, leave_out):
    generator = torch.Generator().manual_seed(seed)
    # On a coarse grid, so that equal distances and copies are frequent.
    query = torch.randint(-1, 2, (queries, 2), generator=generator).float()
    reference = torch.randint(-1, 2, (references, 2), generator=generator).float()
    own = torch.randint(references, (queries,), generator=generator) if leave_out else None
    for k in range(1, references + 1 - leave_out):
        found = nearest_neighbours(query, reference, k, left_out=own)
        assert found.shape == (queries, k)
        for row in range(queries):
            distances = (query[row] - reference).square().sum(1).tolist()
            others = [index for index in range(references) if own is None or index != own[row]]
            assert found[row].tolist() == sorted(others, key=lambda index, d=distances: d[index])[:k]


def test_attacked_query_never_finds_its_own_clean_image():
    gallery = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    queries = torch.tensor([[3.1], [6.9]], requires_grad=True)  # the second one far from its clean image
    found = nearest_neighbours(queries, gallery, 2, left_out=torch.tensor([2, 0]))
    assert found.tolist() == [[1, 0], [3, 2]]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"query": [[0.0]]}, TypeError, "query: expected a tensor, got list"),
        ({"reference": torch.full((4, 2), torch.nan)}, ValueError, "reference: expected finite values"),
        ({"reference": torch.zeros(4, 3)}, ValueError, r"reference: expected shape \[N, 2\], got \[4, 3\]"),
        ({"reference": torch.zeros(4, 2).double()}, TypeError, "reference: expected the dtype of query, torch.float32"),
        ({"k": 0}, ValueError, "k: expected at least 1, got 0"),
        ({"k": 1.0}, TypeError, "k: expected an integer, got float"),
        ({"k": 5}, ValueError, "k: expected at most the 4 references that count, got 5"),
        ({"k": 4, "left_out": torch.tensor([0, 1])}, ValueError, "k: expected at most the 3 references that count"),
        ({"left_out": torch.tensor([0])}, ValueError, r"left_out: expected shape \[2\], got \[1\]"),
        ({"left_out": torch.zeros(2)}, TypeError, "left_out: expected an integer tensor"),
        ({"left_out": torch.tensor([0, 1], device="meta")}, ValueError, "left_out: expected the device of query"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    with pytest.raises(error, match=message):
        nearest_neighbours(**{"query": torch.zeros(2, 2), "reference": torch.zeros(4, 2), "k": 1, **change})
