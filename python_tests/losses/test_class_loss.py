"""Tests of what the losses with proxies have in common."""

from __future__ import annotations

import math

import pytest
import torch
from loss_cases import LABELS, batch, value_and_gradients
from torch import Tensor

from mdprop_ext.losses import ArcFaceLoss, ClassLoss, ProxyAnchorLoss


@pytest.fixture(params=[ArcFaceLoss, ProxyAnchorLoss])
def loss(request: pytest.FixtureRequest) -> ClassLoss:
    return request.param(classes=4, embedding_dim=5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_proxies_stay_in_float32(loss: ClassLoss, dtype: torch.dtype) -> None:
    embeddings, labels = batch(LABELS["balanced"])
    half = embeddings.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(half, labels)
    inside.backward()
    assert inside.dtype == loss.proxies.dtype == loss.proxies.grad.dtype == torch.float32
    assert half.grad.dtype == dtype
    assert torch.equal(inside, loss(half.detach().float(), labels))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_may_be_of_any_integer_type(loss: ClassLoss, dtype: torch.dtype) -> None:
    embeddings, labels = batch(LABELS["balanced"])
    assert torch.equal(loss(embeddings, labels.to(dtype)), loss(embeddings, labels))


def test_proxies_start_about_one_unit_long(loss: ClassLoss) -> None:
    lengths = type(loss)(classes=50, embedding_dim=400).proxies.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(50), rtol=0, atol=0.2)


def test_float64_embeddings_are_computed_in_float64(loss: ClassLoss) -> None:
    embeddings, labels = batch(LABELS["balanced"])
    value, gradient, proxies = value_and_gradients(lambda e: loss(e, labels), embeddings, loss)
    assert value.dtype == gradient.dtype == torch.float64
    assert proxies.dtype == torch.float32


def test_gradcheck(loss: ClassLoss) -> None:
    embeddings, labels = batch([0, 3, 1, 1])
    loss = loss.double()

    def compute(vectors: Tensor, proxies: Tensor) -> Tensor:
        return torch.func.functional_call(loss, {"proxies": proxies}, (vectors, labels))

    assert torch.autograd.gradcheck(compute, (embeddings.requires_grad_(), loss.proxies.detach().requires_grad_()))


def test_training_it_separates_the_classes(loss: ClassLoss) -> None:
    embeddings, labels = batch(LABELS["balanced"])
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    start = loss(embeddings, labels).item()
    for _ in range(30):
        optimizer.zero_grad()
        value = loss(embeddings, labels)
        value.backward()
        optimizer.step()
    assert value.item() < 0.8 * start


def test_a_nan_shows_in_the_loss(loss: ClassLoss) -> None:
    embeddings, labels = batch(LABELS["balanced"])
    embeddings[3, 1] = math.nan
    assert loss(embeddings, labels).isnan()


def test_checkpoint_holds_the_proxies(loss: ClassLoss) -> None:
    other = type(loss)(classes=4, embedding_dim=5)
    assert not torch.equal(other.proxies, loss.proxies)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other.proxies, loss.proxies)


@pytest.mark.parametrize(
    ("embeddings", "labels", "error", "message"),
    [
        (torch.zeros(2, 4), torch.tensor([0, 1]), ValueError, r"embeddings: expected shape \[N, 5\], got \[2, 4\]"),
        (torch.zeros(2, 5), torch.tensor([0, 4]), ValueError, "labels: expected values from 0 to 3, got 0 to 4"),
        (torch.zeros(2, 5), torch.tensor([-1, 3]), ValueError, "labels: expected values from 0 to 3, got -1 to 3"),
        (torch.zeros(2, 5), torch.zeros(2), TypeError, "labels: expected an integer"),
    ],
)
def test_bad_batches_are_named(
    loss: ClassLoss, embeddings: Tensor, labels: Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        loss(embeddings, labels)


@pytest.mark.parametrize(("classes", "embedding_dim", "name"), [(1, 5, "classes"), (4, 0, "embedding_dim")])
def test_bad_sizes_are_named(loss: ClassLoss, classes: int, embedding_dim: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected at least"):
        type(loss)(classes, embedding_dim)


def test_what_is_printed_names_the_options() -> None:
    assert repr(ArcFaceLoss(4, 5, margin=0.25, scale=8.0)) == (
        "ArcFaceLoss(classes=4, embedding_dim=5, margin=0.25, scale=8.0)"
    )
    assert repr(ProxyAnchorLoss(4, 5, margin=0.25, alpha=8.0)) == (
        "ProxyAnchorLoss(classes=4, embedding_dim=5, margin=0.25, alpha=8.0)"
    )
