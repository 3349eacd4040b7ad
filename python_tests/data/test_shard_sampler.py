"""Tests of the shards of an evaluation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from mdprop_ext.data import ShardSampler


@given(count=st.integers(0, 40), world_size=st.integers(1, 9))
def test_shards_are_the_whole_in_order(count: int, world_size: int) -> None:
    samplers = [ShardSampler(count, rank=rank, world_size=world_size) for rank in range(world_size)]
    shards = [list(sampler) for sampler in samplers]
    assert [position for shard in shards for position in shard] == list(range(count))
    sizes = [len(sampler) for sampler in samplers]
    assert sizes == [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1


def test_serves_a_data_loader() -> None:
    images = torch.arange(7)
    shards = [
        DataLoader(TensorDataset(images), batch_size=2, sampler=ShardSampler(7, rank=rank, world_size=2))
        for rank in range(2)
    ]
    assert torch.equal(torch.cat([batch for shard in shards for (batch,) in shard]), images)


def test_alone_it_holds_everything() -> None:
    assert list(ShardSampler(3)) == [0, 1, 2]
    assert repr(ShardSampler(3)) == "ShardSampler(3, rank=0, world_size=1)"


def test_bad_counts_are_refused() -> None:
    with pytest.raises(TypeError, match="count: expected an integer, got float"):
        ShardSampler(1.5)
    with pytest.raises(ValueError, match="count: expected at least 0, got -1"):
        ShardSampler(-1)
