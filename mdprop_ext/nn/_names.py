"""Names of branches."""

from __future__ import annotations

from collections.abc import Sequence


def check_branch_names(branches: Sequence[str]) -> tuple[str, ...]:
    """Returns the names as a tuple, after checking that they are unique and non-empty strings."""
    # A set has no order, and the first name is branch 0.
    is_sequence = isinstance(branches, Sequence) and not isinstance(branches, str)
    if not is_sequence or not all(isinstance(name, str) for name in branches):
        raise TypeError(f"branches must be a sequence of strings such as ('main', 'adv'), got {branches!r}")
    names = tuple(branches)
    if not names or not all(names) or len(set(names)) != len(names):
        raise ValueError(f"branches must be at least one name, each unique and not empty, got {names}")
    return names


def default_branch_names(num_branches: int) -> tuple[str, ...]:
    """Returns the names "main", "aux1", "aux2", ... of so many branches, after checking that there is one."""
    if isinstance(num_branches, bool) or not isinstance(num_branches, int):
        raise TypeError(f"num_branches must be a whole number, got {num_branches!r}")
    if num_branches < 1:
        raise ValueError(f"num_branches must be at least 1, got {num_branches}")
    return ("main", *(f"aux{index}" for index in range(1, num_branches)))
