"""How samplers deal positions to processes, and what those of batches have in common."""

from __future__ import annotations

import numpy
from torch.utils.data import Sampler

from mdprop_ext._arguments import check_integer
from mdprop_ext._distributed import rank_and_world_size


class ShardedBatchSampler(Sampler[list[int]]):
    """Base of samplers of batches in an order of seed and epoch, of which each process gets a part.

    Args:
        seed: Of the order, at least 0.
        rank: Of this process; None means that in ``torch.distributed``.
        world_size: Number of processes, given together with ``rank``.

    Raises:
        TypeError: If a number is not an int.
        ValueError: If a number is out of range.
    """

    def __init__(self, seed: int, rank: int | None, world_size: int | None) -> None:
        check_integer("seed", seed, least=0)
        self.rank, self.world_size = check_rank(rank, world_size)
        self.seed = seed
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Chooses the order of the next iterations.

        Args:
            epoch: Number of the epoch, at least 0.
            start: Batches to leave out at its beginning, at least 0, to go on in the middle of an epoch.

        Raises:
            TypeError: If a number is not an int.
            ValueError: If a number is below 0.
        """
        check_integer("epoch", epoch, least=0)
        check_integer("start", start, least=0)
        self.epoch = epoch
        self.start = start

    def _generator(self) -> numpy.random.Generator:
        """Returns a new generator of the order of the epoch."""
        return numpy.random.default_rng([self.seed, self.epoch])


def check_rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Fills in the place of this process.

    Args:
        rank: Of this process; None means that in ``torch.distributed``.
        world_size: Number of processes, given together with ``rank``.

    Returns:
        Rank and number of processes.

    Raises:
        TypeError: If one is not an int.
        ValueError: If one is missing or they are out of range.
    """
    if rank is None and world_size is None:
        return rank_and_world_size()
    if rank is None or world_size is None:
        missing = "rank" if rank is None else "world_size"
        raise ValueError(f"{missing}: expected rank and world_size together, got None")
    check_integer("world_size", world_size, least=1)
    check_integer("rank", rank, least=0)
    if rank >= world_size:
        raise ValueError(f"rank: expected 0 to {world_size - 1}, got {rank}")
    return rank, world_size


def shard_of(count: int, rank: int, world_size: int) -> slice:
    """Cuts ``count`` items into parts that differ by at most one in size, and returns the one of ``rank``."""
    return slice(rank * count // world_size, (rank + 1) * count // world_size)
