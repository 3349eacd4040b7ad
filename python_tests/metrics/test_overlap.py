"""Queries that are in the database."""

from __future__ import annotations

import sys

import numpy
import pytest
import torch

from mdprop_ext.metrics import overlap


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3,), (3, 4, 4), ()])
def test_finds_the_queries_that_are_in_the_database(dtype, shape):
    reference = torch.randint(2, (60, *shape), generator=torch.Generator().manual_seed(1)).to(dtype)
    query = torch.randint(2, (40, *shape), generator=torch.Generator().manual_seed(2)).to(dtype)
    query[[5, 17]] = reference[[59, 0]]
    same = (query[:, None].flatten(1)[:, None] == reference[:, None].flatten(1)).all(2).any(1)
    found = overlap(query, reference)
    assert {5, 17} <= set(found.tolist())
    assert torch.equal(found, same.nonzero()[:, 0])


def test_rows_of_any_layout_and_parts_of_any_size(monkeypatch):
    images = torch.rand(20, 3, 4, 4).to(memory_format=torch.channels_last)
    queries = torch.cat([images[::3].contiguous(), torch.rand(2, 3, 4, 4)]).requires_grad_()
    monkeypatch.setattr(sys.modules[overlap.__module__], "_MAX_BYTES_HELD", 500)
    assert overlap(queries, images).tolist() == list(range(7))
    assert overlap(queries, images[:0]).tolist() == overlap(queries[:0], images).tolist() == []


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match=r"reference: expected the dtype of query, torch.float32"):
        overlap(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"reference: expected items like query, \[2, 3\], got \[2, 4\]"):
        overlap(torch.zeros(2, 3), torch.zeros(2, 4))
    for arguments, name in (((numpy.zeros(2), torch.zeros(2)), "query"), ((torch.zeros(2), [0.0]), "reference")):
        with pytest.raises(TypeError, match=f"{name}: expected a tensor, got (ndarray|list)"):
            overlap(*arguments)
