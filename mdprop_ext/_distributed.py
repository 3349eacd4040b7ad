"""The place of this process among those of ``torch.distributed``."""

from __future__ import annotations

from torch import distributed


def rank_and_world_size() -> tuple[int, int]:
    """Returns rank and number of processes of the default group, 0 and 1 where there is none."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
