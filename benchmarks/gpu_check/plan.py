"""A benchmark case that is built only when its turn comes, and the checks and peers that cases of several ops share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import torch

from benchmarks.harness import Case


@dataclass(frozen=True)
class Planned:
    """A case by name, and how to make it: its tensors may take gigabytes."""

    name: str
    build: Callable[[], Case]


def interleaved(*plans: list[Planned]) -> Iterator[Planned]:
    """Cases of all ops in turn, each op's most telling first, so that a short time measures some of every op."""
    return (planned for planned in chain.from_iterable(zip_longest(*plans)) if planned is not None)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as torch.compile makes it, for one shape."""
    return torch.compile(function, dynamic=False)


def near(tolerance: float) -> Callable[[Any, Any], None]:
    """A check that the difference of each result has at most ``tolerance`` times its length."""

    def check(ours: Any, theirs: Any) -> None:
        for mine, other in zip(as_tuple(ours), as_tuple(theirs), strict=True):
            error, length = (mine.double() - other.double()).norm(), other.double().norm()
            assert error <= tolerance * length, f"difference of {float(error / length):.2e} of its length"

    return check


def as_tuple(result: Any) -> tuple[Any, ...]:
    """One or several results as several."""
    return result if isinstance(result, tuple) else (result,)


def name_of(dtype: torch.dtype) -> str:
    """A dtype as rows write it."""
    return str(dtype).removeprefix("torch.")


def deferred(make: Callable[..., Callable[[], Any]], *arguments: Any) -> Callable[[], Any]:
    """A runner that is made by its first call, where an error concerns this peer alone."""
    made: list[Callable[[], Any]] = []

    def call() -> Any:
        if not made:
            made.append(make(*arguments))
        return made[0]()

    return call
