"""Shows in seconds that the installed kernels are right: ``python -m mdprop_ext.selftest``.

Every op is compared with its plain PyTorch reference, and gradients with finite differences, on every device that has a
compiled kernel. Needs torch and numpy only.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mdprop_ext import ops
from mdprop_ext.info import collect, kernels
from mdprop_ext.reference import hamming_topk as hamming_reference
from mdprop_ext.reference import knn_topk as knn_reference
from mdprop_ext.reference import multi_batch_norm as norm_reference
from mdprop_ext.reference import pgd_step as step_reference
from mdprop_ext.reference import random_start as start_reference

Results = Tensor | tuple[Tensor, ...]


def check_multi_batch_norm(device: str, dtype: torch.dtype) -> None:
    """Training forward and backward of a mixed batch, and running statistics."""
    x = torch.randn(12, 5, 9, 11, dtype=dtype, device=device)
    ids = torch.tensor([2, 0, 0, 2, 1, 0, 1, 2, 0, 0, 1, 2], device=device)
    results = []
    for function in (ops.multi_batch_norm, norm_reference.multi_batch_norm):
        tables = [torch.full((3, 5), value, device=device) for value in (1.5, 0.25, 0.0, 1.0)]
        inputs = [x.clone().requires_grad_(), tables[0].requires_grad_(), tables[1].requires_grad_()]
        y = function(*inputs, *tables[2:], branch=ids, training=True, activation="relu")
        results.append((y, *tables[2:], *torch.autograd.grad(y.float().square().sum(), inputs)))
    assert_close(results[0], results[1], dtype)


def check_pgd_step(device: str, dtype: torch.dtype) -> None:
    """Every norm with a radius a sample; the ball holds after rounding."""
    origin = torch.rand(6, 3, 20, 20, device=device).to(dtype)
    x, grad = (origin + 0.01).clamp(0, 1), torch.randn(origin.shape, device=device).to(dtype)
    radius = torch.linspace(0.01, 0.1, 6, device=device)
    for norm, order in (("linf", float("inf")), ("l2", 2.0), ("l1", 1.0)):
        arguments = {"norm": norm, "step": 0.05, "radius": radius}
        result = ops.pgd_step(x, grad, origin, **arguments)  # type: ignore[arg-type]
        assert_close(result, step_reference.pgd_step(x, grad, origin, **arguments), dtype)  # type: ignore[arg-type]
        length = (result.double() - origin.double()).flatten(1).norm(p=order, dim=1)
        assert bool((length <= radius.double() * (1 + 1e-6)).all()), f"pgd_step left the {norm} ball"


def check_random_start(device: str, dtype: torch.dtype) -> None:
    """The noise of the reference, which has the precision of float32 in every dtype."""
    origin = torch.rand(6, 3, 20, 20, device=device).to(dtype)
    for norm in ("linf", "l2", "l1"):
        arguments = {"norm": norm, "radius": torch.linspace(0.01, 0.1, 6, device=device), "seed": 7, "offset": 3}
        result = ops.random_start(origin, **arguments)  # type: ignore[arg-type]
        expected = start_reference.random_start(origin, **arguments)  # type: ignore[arg-type]
        assert_close(result, expected, torch.float32 if dtype == torch.float64 else dtype)


def check_hamming_topk(device: str, dtype: torch.dtype) -> None:
    """Codes of 100 bits with ties."""
    codes = torch.rand(500, 100, device=device) > 0.5
    packed = ops.pack_codes(codes)
    assert torch.equal(ops.unpack_codes(packed, bits=100), codes), "unpack_codes does not invert pack_codes"
    assert_close(
        ops.hamming_topk(packed[:40], packed, 20, bits=100),
        hamming_reference.hamming_topk(packed[:40], packed, 20, bits=100),
        dtype,
    )
    assert_close(
        ops.hamming_distance(packed[:40], packed, bits=100),
        hamming_reference.hamming_distance(packed[:40], packed, bits=100),
        dtype,
    )


def check_knn_topk(device: str, dtype: torch.dtype) -> None:
    """Every metric with duplicated points, and ragged groups."""
    points = torch.randn(400, 32, device=device).to(dtype)
    points[200:] = points[:200].clone()
    for metric in ("sqeuclidean", "euclidean", "cosine", "dot"):
        result = ops.knn_topk(points[:30], points, 7, metric=metric)
        assert_close(result, knn_reference.knn_topk(points[:30], points, 7, metric=metric), dtype)
    groups = torch.tensor([0, 10, 10, 30], device=device), torch.tensor([0, 5, 90, 400], device=device)
    result = ops.knn_topk(points[:30], points, 7, metric="cosine", groups=groups)
    assert_close(result, knn_reference.knn_topk(points[:30], points, 7, metric="cosine", groups=groups), dtype)


def check_gradients(device: str, dtype: torch.dtype) -> None:
    """Finite differences in float64 of the differentiable ops."""
    x = torch.randn(6, 2, 3, dtype=torch.float64, device=device, requires_grad=True)
    weight, bias = (torch.rand(2, 2, dtype=torch.float64, device=device, requires_grad=True) for _ in range(2))

    def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return ops.multi_batch_norm(x, weight, bias, None, None, branch=[4, 2], training=True)

    assert torch.autograd.gradcheck(norm, (x, weight, bias)), "multi_batch_norm: wrong gradient"
    queries, points = (torch.randn(n, 3, dtype=torch.float64, device=device, requires_grad=True) for n in (4, 9))
    for metric in ("sqeuclidean", "euclidean", "cosine", "dot"):

        def nearest(queries: Tensor, points: Tensor, metric: str = metric) -> Tensor:
            return ops.knn_topk(queries, points, 3, metric=metric)[0]

        assert torch.autograd.gradcheck(nearest, (queries, points)), f"knn_topk, {metric}: wrong gradient"


def check_cuda_probe(device: str, dtype: torch.dtype) -> None:
    """The smallest kernel runs on the current stream."""
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        counted = torch.ops.mdprop._cuda_probe(torch.zeros(1000, device=device))
    torch.cuda.synchronize()
    assert torch.equal(counted.cpu(), torch.arange(1000.0)), "the CUDA probe wrote wrong values"


HALVES = (torch.bfloat16, torch.float16)
CHECKS: tuple[tuple[str, Callable[[str, torch.dtype], None], tuple[torch.dtype, ...]], ...] = (
    ("multi_batch_norm", check_multi_batch_norm, (torch.float32, *HALVES)),
    ("pgd_step", check_pgd_step, (torch.float32, torch.float64, *HALVES)),
    ("random_start", check_random_start, (torch.float32, torch.float64, *HALVES)),
    ("hamming_topk", check_hamming_topk, (torch.int64,)),
    ("knn_topk", check_knn_topk, (torch.float32, torch.float64, *HALVES)),
    ("gradients", check_gradients, (torch.float64,)),
)


def assert_close(results: Results, expected: Results, dtype: torch.dtype) -> None:
    """Compares with a tolerance of a few roundings of the dtype; integers exactly."""
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}.get(dtype, 0.0)
    torch.testing.assert_close(results, expected, rtol=tolerance, atol=tolerance)


def run() -> list[tuple[str, str, str, float]]:
    """Runs every check.

    Returns:
        One row a check: name, device, ``"ok"`` or what went wrong, and seconds.
    """
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    rows = []
    for device in devices:
        probe = [("cuda probe", check_cuda_probe, (torch.float32,))] if device == "cuda" else []
        for name, check, dtypes in [*CHECKS, *probe]:
            start, verdict = time.perf_counter(), "ok"
            for dtype in dtypes:
                torch.manual_seed(0)
                try:
                    check(device, dtype)
                except Exception as error:  # every failure becomes a row, so that one does not hide the others
                    verdict = f"failed for {dtype}: {str(error).strip().splitlines()[0]}"
                    break
            rows.append((name, device, verdict, time.perf_counter() - start))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints one line a check; the status is 1 if any failed."""
    argparse.ArgumentParser(prog="python -m mdprop_ext.selftest", description=__doc__).parse_args(arguments)
    state = torch.get_rng_state()
    rows = run()
    torch.set_rng_state(state)
    for name, device, verdict, seconds in rows:
        compiled = name in ("gradients", "cuda probe") or device in kernels(name)
        kind = "" if compiled else " (reference)"
        sys.stdout.write(f"{name:<18} {device:<5} {seconds:6.2f} s  {verdict}{kind}\n")
    failed = sum(verdict != "ok" for _, _, verdict, _ in rows)
    sys.stdout.writelines(f"missing: {sentence}\n" for sentence in collect()["missing"])
    sys.stdout.write(f"{len(rows) - failed} passed, {failed} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
