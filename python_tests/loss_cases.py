"""Batches that the tests of losses and miners share, and how results are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

#: Labels by what is special about them; all of 12 samples.
LABELS = {
    "balanced": [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3],
    "shuffled, with classes alone": [5, 1, 0, 1, 7, 0, 2, 1, 0, 1, 3, 0],
    "one class": [2] * 12,
    "all alone": list(range(12)),
}


def peer(module: str) -> Any:
    """A module of pytorch-metric-learning; the test is skipped where that is not installed."""
    return pytest.importorskip(f"pytorch_metric_learning.{module}")


def batch(labels: list[int], *, seed: int = 0, dimension: int = 5, duplicates: bool = False) -> tuple[Tensor, Tensor]:
    """Embeddings of various lengths, in fp64; with ``duplicates`` the second half repeats the first."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(len(labels), dimension, generator=generator, dtype=torch.float64)
    embeddings *= torch.rand(len(labels), 1, generator=generator, dtype=torch.float64) * 3 + 0.1
    if duplicates:
        half = len(labels) // 2
        embeddings[half:] = embeddings[:half]
    return embeddings, torch.tensor(labels)


def value_and_gradients(compute: Callable[[Tensor], Tensor], embeddings: Tensor, *modules: nn.Module) -> list[Tensor]:
    """The loss, its gradient at the embeddings and those of the modules' parameters."""
    leaf = embeddings.detach().clone().requires_grad_()
    parameters = [parameter for module in modules for parameter in module.parameters()]
    loss = compute(leaf)
    gradients = torch.autograd.grad(loss, [leaf, *parameters], allow_unused=True, materialize_grads=True)
    return [loss.detach(), *gradients]


def assert_equal(ours: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)
