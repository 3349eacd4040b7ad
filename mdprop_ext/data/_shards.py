"""How samplers deal positions to processes."""

from __future__ import annotations

from mdprop_ext._distributed import rank_and_world_size


def check_rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Fills in the place of this process.

    Args:
        rank: Of this process; None means that in ``torch.distributed``.
        world_size: Number of processes, given together with ``rank``.

    Returns:
        Rank and number of processes.

    Raises:
        ValueError: If one is missing or they are out of range.
    """
    if rank is None and world_size is None:
        return rank_and_world_size()
    if rank is None or world_size is None:
        missing = "rank" if rank is None else "world_size"
        raise ValueError(f"{missing}: expected rank and world_size together, got None")
    if world_size < 1:
        raise ValueError(f"world_size: expected at least 1, got {world_size}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank: expected 0 to {world_size - 1}, got {rank}")
    return rank, world_size


def shard_of(count: int, rank: int, world_size: int) -> slice:
    """Cuts ``count`` items into parts that differ by at most one in size, and returns the one of ``rank``."""
    return slice(rank * count // world_size, (rank + 1) * count // world_size)


def check_epoch(epoch: int, start: int) -> None:
    """Raises unless both are at least 0."""
    for name, value in (("epoch", epoch), ("start", start)):
        if value < 0:
            raise ValueError(f"{name}: expected at least 0, got {value}")
