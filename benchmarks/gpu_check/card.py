"""Whether a process can still use the card."""

from __future__ import annotations

import torch


def card_is_lost() -> bool:
    """Whether an error of a kernel has broken this process's use of the card."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
