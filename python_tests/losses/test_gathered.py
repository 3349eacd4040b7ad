"""Tests of losses of the joined batches of two processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from distributed import run_on_ranks
from loss_cases import assert_equal, batch
from losses import gathered_cases as cases
from torch import Tensor, nn

from mdprop_ext.losses import GatheredLoss, MultiSimilarityLoss

if not torch.distributed.is_available():
    pytest.skip("this torch has no torch.distributed", allow_module_level=True)


@pytest.fixture(scope="module")
def results() -> list[dict[str, Any]]:
    """What both processes found."""
    return run_on_ranks(cases.work, cases.WORLD_SIZE)


@pytest.mark.parametrize("case", cases.losses())
def test_equals_one_process_with_the_joined_batch(results: list[dict[str, Any]], case: str) -> None:
    loss, network = cases.seeded(cases.losses()[case]), cases.network()
    expected = cases.run_steps(loss, network, lambda step: slice(None))
    assert any(gradient.any() for gradient in expected["network"])
    for found in results:
        for what, tensors in expected.items():
            assert_equal(found[case][what], tensors)


def test_all_processes_hold_the_same_queue(results: list[dict[str, Any]]) -> None:
    for one, other in zip(*(found["memory"]["buffers"] for found in results), strict=True):
        assert torch.equal(one, other)


def test_samplers_take_their_place_from_torch_distributed(results: list[dict[str, Any]]) -> None:
    first, second = (found["samplers"] for found in results)
    alone = cases.samplers()
    assert first["shard"] + second["shard"] == alone["shard"] == list(range(11))
    for name in ("class", "epoch"):
        joined = [one + other for one, other in zip(first[name], second[name], strict=True)]
        assert joined == alone[name]
        assert all(first[name] + second[name])


def test_alone_it_is_the_loss_itself() -> None:
    embeddings, labels = batch([0, 0, 1, 1])
    loss = MultiSimilarityLoss()
    assert torch.equal(GatheredLoss(loss)(embeddings, labels), loss(embeddings, labels))


class GramLoss(nn.Module):
    """A loss that leaves precision to its caller, as most do."""

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return (embeddings @ embeddings.T).square().mean()


def test_half_types_and_autocast_are_computed_in_float32() -> None:
    embeddings, labels = batch([0, 0, 1, 1])
    half = embeddings.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = GatheredLoss(GramLoss())(half, labels)
    value.backward()
    assert torch.equal(value, GramLoss()(half.detach().float(), labels))
    assert half.grad.dtype == torch.bfloat16


def test_a_class_is_no_instance() -> None:
    with pytest.raises(TypeError, match=r"loss: expected an instance such as MultiSimilarityLoss\(\), got the class"):
        GatheredLoss(MultiSimilarityLoss)


def test_bad_batches_are_named() -> None:
    with pytest.raises(ValueError, match=r"labels: expected shape \[2\], got \[3\]"):
        GatheredLoss(MultiSimilarityLoss())(torch.zeros(2, 3), torch.tensor([0, 1, 2]))
