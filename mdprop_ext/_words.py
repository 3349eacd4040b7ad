"""Words of messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LEAST_SIMILAR = 0.65  # typing errors lie above; words that share some letters, such as "seeds" and "steps", below


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Returns the end of a sentence about an unknown name: which of ``names`` is likely meant, or nothing."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=_LEAST_SIMILAR)
    return f", did you mean {near[0]!r}?" if near else ""


def counted(number: int, what: str) -> str:
    """Returns a number and what it counts: 1 step, 2 steps."""
    return f"{number} {what}{'s' * (number != 1)}"
