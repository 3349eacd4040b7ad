"""The share of one process in an evaluation."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler

from mdprop_ext._arguments import check_integer
from mdprop_ext.data._shards import check_rank, shard_of


class ShardSampler(Sampler[int]):
    """Deals positions to processes in one run each, every position exactly once, for ``DataLoader(sampler=...)``.

    Embeddings of the shards, put together in the order of ranks, are in the order of the images. Unlike
    ``torch.utils.data.DistributedSampler`` nothing is repeated to make shards equal, which would count images twice in
    a metric; sizes differ by at most one, and a shard is empty where there are fewer images than processes.

    Args:
        count: Number of images, at least 0.
        rank: Of this process; None means that in ``torch.distributed``, if that is initialised.
        world_size: Number of processes, given together with ``rank``.

    Raises:
        TypeError: If a number is not an int.
        ValueError: If a number is out of range.

    Example:
        >>> [list(ShardSampler(5, rank=rank, world_size=2)) for rank in range(2)]
        [[0, 1], [2, 3, 4]]
    """

    def __init__(self, count: int, *, rank: int | None = None, world_size: int | None = None) -> None:
        check_integer("count", count, least=0)
        self.count = count
        self.rank, self.world_size = check_rank(rank, world_size)
        self._positions = range(count)[shard_of(count, self.rank, self.world_size)]

    def __len__(self) -> int:
        """Returns the number of positions of this process."""
        return len(self._positions)

    def __iter__(self) -> Iterator[int]:
        """Yields positions in ascending order."""
        return iter(self._positions)

    def __repr__(self) -> str:
        return f"ShardSampler({self.count}, rank={self.rank}, world_size={self.world_size})"
