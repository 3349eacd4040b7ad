"""A benchmark case that is built only when its turn comes, and the checks and peers that cases of several ops share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Any

import torch

from benchmarks.harness import Case
from benchmarks.quotes import GPU_QUOTES


@dataclass(frozen=True)
class Planned:
    """A row by its columns, and how to make it: its tensors may take gigabytes.

    ``kind`` is what else tells groups of rows of an op apart, such as layout and direction.
    """

    op: str
    case: str
    dtype: str
    build: Callable[[], Case]
    kind: str = ""

    @property
    def name(self) -> str:
        """What records and reports call it."""
        return f"{self.op} {self.case} {self.dtype}"


def interleaved(*plans: list[Planned]) -> Iterator[Planned]:
    """Cases of all ops in turn, each op's most telling first, so that a short time measures some of every op."""
    return (planned for planned in chain.from_iterable(zip_longest(*plans)) if planned is not None)


def rows_to_compile(planned: Iterable[Planned]) -> frozenset[str]:
    """The rows with torch.compile as a peer, by name: it takes seconds to compile, so a few have to do.

    Those are the rows that the README quotes against it, and the first one of each op, dtype and kind.
    """
    quoted = {(quote.op, quote.case, quote.dtype) for quote in GPU_QUOTES if quote.peer == "compile"}
    first: dict[tuple[str, str, str], str] = {}
    names = set()
    for row in planned:
        first.setdefault((row.op, row.dtype, row.kind), row.name)
        if (row.op, row.case, row.dtype) in quoted:
            names.add(row.name)
    return frozenset(names.union(first.values()))


def without_compiled(case: Case) -> Case:
    """The case with no peer that has to be compiled."""
    return replace(case, peers={name: None if "compile" in name else peer for name, peer in case.peers.items()})


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


def max_error(ours: Any, exact: Any) -> float:
    """The greatest difference from float64 results, as a share of the greatest value of each."""
    pairs = zip(as_tuple(ours), as_tuple(exact), strict=True)
    return max(float((mine.double() - true).abs().max() / true.abs().max()) for mine, true in pairs)


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
