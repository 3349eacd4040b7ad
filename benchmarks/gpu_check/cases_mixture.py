"""multi_batch_norm_mixture on a card, forward, against its reference and torch.compile of that."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.gpu_check.plan import Planned, compiled, max_error, name_of, near
from benchmarks.harness import Case
from mdprop_ext import ops
from mdprop_ext.reference.multi_batch_norm_mixture import multi_batch_norm_mixture as reference

SHAPE, BRANCHES = (64, 256, 56, 56), 2
CHECKED_SAMPLES = 4  # that are compared with float64
LABEL = f"{'x'.join(map(str, SHAPE))} nchw forward B {BRANCHES}"


def plan() -> list[Planned]:
    """All rows of multi_batch_norm_mixture."""
    return [Planned("multi_batch_norm_mixture", LABEL, name_of(torch.bfloat16), partial(case, torch.bfloat16))]


def case(dtype: torch.dtype, shape: tuple[int, ...] = SHAPE, device: str = "cuda") -> Case:
    """The tensors and peers of the row."""
    torch.manual_seed(0)
    x = torch.randn(shape, device=device).to(dtype)
    tables = [torch.rand(BRANCHES, shape[1], device=device) + 0.5 for _ in range(4)]
    probs = torch.rand(shape[0], BRANCHES, device=device).softmax(1)
    compiled_reference = compiled(reference)

    def figures() -> dict[str, float]:
        few = slice(CHECKED_SAMPLES)
        exact = reference(x[few].double(), *(table.double() for table in tables), probs[few].double())
        return {"max_error": max_error(ops.multi_batch_norm_mixture(x, *tables, probs)[few], exact)}

    return Case(
        op="multi_batch_norm_mixture",
        case=LABEL,
        dtype=name_of(dtype),
        device=device,
        ours=lambda: ops.multi_batch_norm_mixture(x, *tables, probs),
        peers={
            "reference": lambda: reference(x, *tables, probs),
            "compile": lambda: compiled_reference(x, *tables, probs),
        },
        check=near(2e-2),
        work=x.numel(),
        unit="values/s",
        least_bytes=2 * x.nbytes,
        figures=figures,
    )
