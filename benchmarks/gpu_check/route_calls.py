"""One call, as small as can be, for each way that the kernels take a problem, which small samples do not reach.

Sizes are those at which ``csrc/*/*_plan.h`` change the route: several blocks a sample with a barrier between them,
branches that do not fit a block, searches that several blocks share.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mdprop_ext import ops

TEAM = (1, 40_000)  # five parts, each summed up by a block of the sample's team
TEAMS = (140, 16_400)  # on 132 multiprocessors teams of three blocks, most of which take two samples
SEARCH = (64, 4096, 16)  # enough work for the filter on tensor cores, and points for four ranges


def step(shape: tuple[int, ...], norm: str, device: str, *, dtype: torch.dtype = torch.float32, how: str = "") -> None:
    """pgd_step; ``how`` adds a velocity, or a mask, inactive samples and a bfloat16 result."""
    origin = torch.rand(shape, device=device, dtype=dtype)
    options: dict[str, Any] = {"velocity": torch.ones_like(origin)} if how == "momentum" else {}
    if how == "options":
        options = {"mask": torch.rand(shape, device=device) < 0.9, "out": origin.to(torch.bfloat16)}
        options["active"] = torch.arange(shape[0], device=device) % 3 != 1
    length = {"linf": 0.1, "l2": 0.1 * shape[1] ** 0.5, "l1": 0.01 * shape[1]}[norm]
    ops.pgd_step(origin, torch.randn_like(origin), origin, norm=norm, step=0.5 * length, radius=length, **options)


def start(norm: str, device: str) -> None:
    """random_start with several tiles of noise a sample."""
    ops.random_start(torch.rand(2, 3000, device=device), norm=norm, radius=1.0, seed=1)


def norm(shape: tuple[int, ...], device: str, *, how: str = "", dtype: torch.dtype = torch.float32) -> None:
    """multi_batch_norm of two branches, forward and backward; ``how`` holds any of rows, ids, fused, eval."""
    x = torch.randn(shape, device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last) if "rows" in how else x
    weight, bias, mean, var = (torch.rand(2, shape[1], device=device) + 0.5 for _ in range(4))
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    fused: dict[str, Any] = {"residual": torch.randn_like(x), "activation": "relu"} if "fused" in how else {}
    branch = torch.arange(shape[0]) % 2 if "ids" in how else torch.tensor([shape[0] // 2] * 2)
    options = {"branch": branch.to(device), "training": "eval" not in how, **fused}
    y = ops.multi_batch_norm(x, weight, bias, mean, var, **options)
    torch.autograd.grad(y, inputs, torch.randn_like(y))


def halves(device: str) -> None:
    """Statistics and sums of multi_batch_norm apart, as several processes exchange them."""
    x, sizes = torch.randn(4, 2, 96, 96, device=device), torch.tensor([2, 2], device=device)
    moments = torch.ops.mdprop.multi_batch_norm_statistics(x, 2, None, sizes)
    mean, var, _ = torch.ops.mdprop.multi_batch_norm_merge(torch.stack([moments, moments]), x.dtype)
    torch.ops.mdprop.multi_batch_norm_backward_sums(x, x, None, None, mean, var, None, None, sizes, 1e-5, None)


def mixture(device: str) -> None:
    """multi_batch_norm_mixture, forward and backward."""
    x = torch.randn(4, 8, 16, 16, device=device, requires_grad=True)
    weight, bias, mean, var = (torch.rand(3, 8, device=device) + 0.5 for _ in range(4))
    probs = torch.rand(4, 3, device=device).softmax(1).requires_grad_()
    y = ops.multi_batch_norm_mixture(x, weight.requires_grad_(), bias, mean, var, probs)
    torch.autograd.grad(y, (x, weight, probs), torch.randn_like(y))


def offsets(*sizes: int, device: str) -> Tensor:
    """Where groups begin and end."""
    return torch.tensor([0, *sizes]).cumsum(0).to(device)


def knn(shape: tuple[int, int, int], k: int, device: str, *, how: str = "", dtype: torch.dtype = torch.float32) -> None:
    """knn_topk, forward and backward; ``how`` may be groups, or equal points, whose certificates fail."""
    num_queries, num_points, dim = shape
    queries, points = (torch.randn(rows, dim, device=device, dtype=dtype) for rows in (num_queries, num_points))
    if how == "equal":
        points[:] = points[0]
    groups = None
    if how == "groups":
        groups = offsets(num_queries - 3, 0, 3, device=device), offsets(num_points - 9, 2, 7, device=device)
    inputs = [queries.requires_grad_(), points.requires_grad_()]
    distances, _ = ops.knn_topk(queries, points, k, metric="sqeuclidean", groups=groups)
    known = torch.where(distances.isfinite(), distances, 0)
    torch.autograd.grad(known, inputs, torch.ones_like(known))


def hamming(words: int, k: int, device: str, *, num_queries: int = 20, grouped: bool = False) -> None:
    """hamming_topk among so many codes that several blocks share a query."""
    count = 9000
    queries, codes = (torch.randint(-(1 << 62), 1 << 62, (rows, words), device=device) for rows in (num_queries, count))
    groups = None
    if grouped:
        groups = offsets(num_queries - 3, 0, 3, device=device), offsets(count - 9, 2, 7, device=device)
    ops.hamming_topk(queries, codes, k, bits=64 * words, groups=groups)


def route_calls(device: str) -> dict[str, Callable[[], None]]:
    """The calls by name, those whose blocks wait for each other first."""
    half, double = torch.bfloat16, torch.float64
    return {
        "pgd_step l2, a team of blocks": partial(step, TEAM, "l2", device),
        "pgd_step l1, a team, guessing": partial(step, TEAM, "l1", device),
        "pgd_step l1, a team, not guessing": partial(step, (1, 12_000), "l1", device, dtype=half),
        "pgd_step linf, a team, momentum": partial(step, TEAM, "linf", device, how="momentum"),
        "pgd_step l2, a team, mask and out": partial(step, TEAM, "l2", device, how="options"),
        "pgd_step l2, a team, not aligned": partial(step, (2, 40_001), "l2", device),
        "pgd_step l2, teams with two samples each": partial(step, TEAMS, "l2", device),
        "pgd_step l1, teams with two samples each": partial(step, TEAMS, "l1", device),
        "pgd_step l1, teams with two samples each, some inactive": partial(step, TEAMS, "l1", device, how="options"),
        "pgd_step linf, teams with two samples each, momentum": partial(step, TEAMS, "linf", device, how="momentum"),
        "pgd_step l2, a block for several parts": partial(step, (300, 8200), "l2", device),
        "multi_batch_norm planes, streaming": partial(norm, (4, 2, 96, 96), device),
        "multi_batch_norm planes, streaming, ids, fused": partial(norm, (8, 2, 65, 65), device, how="ids fused"),
        "multi_batch_norm rows, streaming": partial(norm, (4, 16, 48, 48), device, how="rows"),
        "multi_batch_norm rows, streaming, ids, fused": partial(
            norm, (4, 64, 40, 40), device, how="rows ids fused", dtype=half
        ),
        "multi_batch_norm planes, resident": partial(norm, (4, 8, 16, 16), device, how="ids fused"),
        "multi_batch_norm rows, resident": partial(norm, (4, 8, 8, 8), device, how="rows fused"),
        "multi_batch_norm in halves": partial(halves, device),
        "multi_batch_norm evaluation": partial(norm, (4, 8, 16, 16), device, how="eval"),
        "knn_topk filter, several ranges": partial(knn, SEARCH, 10, device),
        "knn_topk filter, wide blocks": partial(knn, (1024, 2048, 16), 10, device),
        "knn_topk filter, failed certificates": partial(knn, SEARCH, 10, device, how="equal"),
        "knn_topk filter, groups": partial(knn, SEARCH, 10, device, how="groups"),
        "knn_topk filter, large k": partial(knn, SEARCH, 300, device, dtype=half),
        "knn_topk direct, several ranges": partial(knn, (20, 4096, 8), 10, device, dtype=double),
        "hamming_topk several ranges": partial(hamming, 1, 10, device),
        "hamming_topk several ranges, two words": partial(hamming, 2, 100, device),
        "hamming_topk several ranges, three words": partial(hamming, 3, 10, device),
        "hamming_topk several ranges, four words": partial(hamming, 4, 10, device),
        "hamming_topk several passes": partial(hamming, 1, 2100, device, num_queries=3),
        "hamming_topk groups": partial(hamming, 1, 10, device, grouped=True),
        "multi_batch_norm_mixture": partial(mixture, device),
        **{f"random_start {norm}, several tiles": partial(start, norm, device) for norm in ("linf", "l2", "l1")},
    }
