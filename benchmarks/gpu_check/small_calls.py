"""Calls every op forward and backward on small tensors: one call a route, and one for each kind of sample.

The samples are those of the contract table. Their ops alternate, so that even a few of them are of every op. What the
ops compute is not looked at.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from functools import partial

import torch
from op_case import OpCase, Sample
from op_cases import OP_CASES
from op_checks import first, moved, with_gradients

from benchmarks.gpu_check.card import card_is_lost
from benchmarks.gpu_check.process import append, deadline_told
from benchmarks.gpu_check.route_calls import route_calls

MOST_VALUES = 1 << 14
MOST_CALLS = 10  # of one op and dtype


def chosen(case: OpCase) -> Iterator[tuple[str, Sample]]:
    """The first small sample of each variant, for the first dtype and bfloat16."""
    for dtype in dict.fromkeys((case.dtypes[0], *(d for d in case.dtypes if d == torch.bfloat16))):
        variants: dict[str, Sample] = {}
        for sample in case.samples(dtype):
            size = sum(value.numel() for value in sample.args if isinstance(value, torch.Tensor))
            if 0 < size <= MOST_VALUES:
                variants.setdefault(sample.variant, sample)
        step = max(1, len(variants) // MOST_CALLS)
        for sample in list(variants.values())[::step]:
            yield f"{case.name} {sample.name} {str(dtype).removeprefix('torch.')}", sample


def call(case: OpCase, sample: Sample) -> None:
    """One call on the card, with its gradients."""
    copy = with_gradients(case, sample.map(lambda tensor: tensor.to("cuda")))
    result = first(case.raw(*moved(case.raw_args(copy), "cuda")))
    wanted = [copy.args[i] for i in case.differentiable if copy.args[i] is not None]
    if wanted and result.requires_grad:
        torch.autograd.grad(result, wanted, torch.ones_like(result))


def calls() -> Iterator[tuple[str, Callable[[], None]]]:
    """The calls of each route first: their kernels are the ones that may wait for each other, or read too far."""
    yield from route_calls("cuda").items()
    rounds = itertools.zip_longest(*([(case, *pair) for pair in chosen(case)] for case in OP_CASES))
    for entry in filter(None, itertools.chain.from_iterable(rounds)):
        case, name, sample = entry
        yield name, partial(call, case, sample)


def main() -> int:
    deadline = deadline_told()
    torch.manual_seed(0)
    failed = False
    for name, run in calls():
        if deadline.left() == 0:
            break
        try:
            run()
            torch.cuda.synchronize()
            append({"done": name})
        except Exception as error:  # a call that raises must not hide the next ones
            failed = True
            append({"failed": name, "message": f"{type(error).__name__}: {error}".partition("\n")[0]})
            if card_is_lost():  # but after this one they would all raise
                break
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
