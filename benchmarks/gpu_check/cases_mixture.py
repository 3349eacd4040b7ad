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
    weight, bias, mean, var = (torch.rand(BRANCHES, shape[1], device=device) + 0.5 for _ in range(4))
    probs = torch.rand(shape[0], BRANCHES, device=device).softmax(1)
    compiled_reference = compiled(reference)

    def figures() -> dict[str, float]:
        few = slice(CHECKED_SAMPLES)
        parts = x[few], weight, bias, mean, var, probs[few]
        a, b, c, d, e, f = (part.double() for part in parts)
        exact = reference(a, b, c, d, e, f)
        return {"max_error": max_error(ops.multi_batch_norm_mixture(x, weight, bias, mean, var, probs)[few], exact)}

    return Case(
        op="multi_batch_norm_mixture",
        case=LABEL,
        dtype=name_of(dtype),
        device=device,
        ours=lambda: ops.multi_batch_norm_mixture(x, weight, bias, mean, var, probs),
        peers={
            "reference": lambda: reference(x, weight, bias, mean, var, probs),
            "compile": lambda: compiled_reference(x, weight, bias, mean, var, probs),
        },
        check=near(2e-2),
        work=x.numel(),
        unit="values/s",
        least_bytes=2 * x.nbytes,
        figures=figures,
    )
