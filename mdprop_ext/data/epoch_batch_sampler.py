"""Batches that hold every image once an epoch."""

from __future__ import annotations

from collections.abc import Iterator

from mdprop_ext._arguments import check_integer
from mdprop_ext.data._shards import ShardedBatchSampler, shard_of


class EpochBatchSampler(ShardedBatchSampler):
    """Draws batches of images in random order, each once an epoch, for ``DataLoader(batch_sampler=...)``.

    Where the batch size does not divide the images, an epoch has one batch more and all batches are a little smaller,
    their sizes differing by at most one: no tiny last batch disturbs batch norm. With ``drop_last`` batches are exact
    and the images left over, others in every epoch, are not seen.

    The order depends on ``seed`` and the epoch alone; call :meth:`set_epoch` before each epoch for a new one. Of
    several processes each gets a part of every batch; the parts are disjoint, differ by at most one in size, and are
    together, in the order of ranks, the batch of a single process.

    Args:
        count: Number of images, at least 1.
        batch_size: Images in a batch of all processes together, at least ``world_size``; without ``drop_last`` at least
            twice that where there are several processes, so that no part is ever empty.
        seed: Of the order, at least 0.
        drop_last: Whether images that do not fill a batch are left out.
        rank: Of this process; None means that in ``torch.distributed``, if that is initialised.
        world_size: Number of processes, given together with ``rank``.

    Raises:
        TypeError: If a number is not an int.
        ValueError: If a number is out of range.

    Example:
        >>> [len(batch) for batch in EpochBatchSampler(10, 4, seed=0)]
        [3, 3, 4]
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int = 0,
        *,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        super().__init__(seed, rank, world_size)
        least = self.world_size * (1 if drop_last or self.world_size == 1 else 2)
        check_integer("count", count, least=self.world_size)
        check_integer("batch_size", batch_size, least=least)
        if drop_last and batch_size > count:
            raise ValueError(f"batch_size: expected at most the {count} images, got {batch_size}")
        self.count = count
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __len__(self) -> int:
        """Returns the number of batches in a whole epoch, the same for all processes."""
        return self.count // self.batch_size if self.drop_last else -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Yields lists of positions."""
        order = self._generator().permutation(self.count)
        seen = len(self) * self.batch_size if self.drop_last else self.count
        for index in range(self.start, len(self)):
            batch = order[shard_of(seen, index, len(self))]
            yield batch[shard_of(len(batch), self.rank, self.world_size)].tolist()

    def __repr__(self) -> str:
        options = f"{self.count}, {self.batch_size}, seed={self.seed}, drop_last={self.drop_last}"
        return f"EpochBatchSampler({options}, rank={self.rank}, world_size={self.world_size})"
