"""What the migration guides promise: the same numbers as the loops and layers that users come from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mdprop_ext.attacks import FGSM, MIFGSM, PGD
from mdprop_ext.nn import MultiBatchNorm2d, use_branches


class SplitNorm(nn.BatchNorm2d):
    """Equal parts of a batch, each with a batch norm of its own; in evaluation the first one alone."""

    def __init__(self, channels: int, splits: int) -> None:
        super().__init__(channels)
        self.aux_bn = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(splits - 1))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        first, *others = x.chunk(1 + len(self.aux_bn))
        return torch.cat(
            [super().forward(first), *(norm(part) for norm, part in zip(self.aux_bn, others, strict=True))]
        )


@pytest.fixture
def split_norm():
    norm = SplitNorm(4, 3).double()
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.5, 2)
    return norm


def multi_norm_like(norm: SplitNorm) -> MultiBatchNorm2d:
    layer = MultiBatchNorm2d(4, branches=("main", "second", "third")).double()
    layer.load_state_dict(norm.state_dict())
    return layer


def test_a_split_norm_trains_alike(split_norm):
    layer = multi_norm_like(split_norm)
    x = torch.randn(6, 4, 5, 5, dtype=torch.float64)
    gradient = torch.randn_like(x)
    results = []
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    results.append(split_norm(inputs[0]))
    with use_branches(layer, {"main": 2, "second": 2, "third": 2}):
        results.append(layer(inputs[1]))
    for result in results:
        result.backward(gradient)
    torch.testing.assert_close(*results)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    for (name, wanted), (ours, value) in zip(split_norm.named_parameters(), layer.named_parameters(), strict=True):
        assert name == ours
        torch.testing.assert_close(value.grad, wanted.grad)
    torch.testing.assert_close(dict(layer.state_dict()), dict(split_norm.state_dict()))


def test_a_split_norm_evaluates_and_loads_alike(split_norm):
    split_norm(torch.randn(6, 4, 5, 5, dtype=torch.float64))
    layer = multi_norm_like(split_norm).eval()
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(x), split_norm.eval()(x))
    SplitNorm(4, 3).double().load_state_dict(layer.state_dict())


def linf_loop(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    alpha: float,
    steps: int,
    decay: float | None = None,
    sign: int = 1,
) -> Tensor:
    """PGD as it is usually written: mean loss, sign, two clamps; with ``decay`` over a velocity."""
    adversarial, velocity = images, torch.zeros_like(images)
    for _ in range(steps):
        adversarial = adversarial.detach().requires_grad_()
        loss = sign * nn.functional.cross_entropy(model(adversarial), labels)
        (gradient,) = torch.autograd.grad(loss, adversarial)
        if decay is not None:
            velocity = decay * velocity + gradient / gradient.abs().mean((1, 2, 3), keepdim=True)
            gradient = velocity
        stepped = adversarial.detach() + alpha * gradient.sign()
        adversarial = (images + (stepped - images).clamp(-eps, eps)).clamp(0, 1)
    return adversarial


def l2_loop(model: nn.Module, images: Tensor, labels: Tensor, *, eps: float, alpha: float, steps: int) -> Tensor:
    adversarial = images
    for _ in range(steps):
        adversarial = adversarial.detach().requires_grad_()
        loss = nn.functional.cross_entropy(model(adversarial), labels)
        (gradient,) = torch.autograd.grad(loss, adversarial)
        lengths = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        change = adversarial.detach() + alpha * gradient / lengths - images
        lengths = change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        adversarial = (images + change * (eps / lengths).clamp(max=1)).clamp(0, 1)
    return adversarial


def least_likely_loop(model: nn.Module, images: Tensor, labels: Tensor, **options: Any) -> Tensor:
    unlikely = model(images)
    unlikely[torch.arange(len(labels)), labels] = torch.inf
    return linf_loop(model, images, unlikely.argmin(1), sign=-1, **options)


def normalised_loop(model: nn.Module, images: Tensor, labels: Tensor, **options: Any) -> Tensor:
    return linf_loop(lambda pixels: model((pixels - MEAN) / STD), images, labels, **options)


LINF: dict[str, Any] = {"eps": 8 / 256, "alpha": 2 / 256, "steps": 7}
L2: dict[str, Any] = {"eps": 0.5, "alpha": 0.2, "steps": 5}
PLAIN: dict[str, Any] = {"random_start": False, "keep_best": False}
LABELS, TARGETS = torch.tensor([0, 3, 1, 2]), torch.tensor([4, 1, 0, 3])
MEAN, STD = 0.5, 0.25


def least_likely(logits: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    return logits.scatter(1, labels[:, None], torch.inf).argmin(1)


def by_label(attack: Any) -> Callable[[Tensor, Tensor], Tensor]:
    attack.set_mode_targeted_by_label(quiet=True)
    return lambda images, labels: attack(images, TARGETS)


def to_least_likely(attack: Any) -> Any:
    attack.set_mode_targeted_least_likely(quiet=True)
    return attack


def on_normalised(attack: Any) -> Callable[[Tensor, Tensor], Tensor]:
    attack.set_normalization_used(mean=[MEAN] * 3, std=[STD] * 3)
    return lambda images, labels: attack((images - MEAN) / STD, labels) * STD + MEAN


# Rows of the guide's table: our attack, the loop that people write, and what they say to torchattacks.
ROWS: dict[str, tuple[Callable[..., Any], Callable[..., Tensor], Callable[..., Any]]] = {
    "PGD": (
        lambda model: PGD(model, **LINF, **PLAIN),
        partial(linf_loop, **LINF),
        lambda peer, model: peer.PGD(model, **LINF, random_start=False),
    ),
    "PGDL2": (
        lambda model: PGD(model, norm="l2", **L2, **PLAIN),
        partial(l2_loop, **L2),
        lambda peer, model: peer.PGDL2(model, **L2, random_start=False),
    ),
    "FGSM": (
        lambda model: FGSM(model, eps=8 / 256),
        partial(linf_loop, eps=8 / 256, alpha=8 / 256, steps=1),
        lambda peer, model: peer.FGSM(model, eps=8 / 256),
    ),
    "MIFGSM": (
        lambda model: MIFGSM(model, **LINF, decay=0.5),
        partial(linf_loop, **LINF, decay=0.5),
        lambda peer, model: peer.MIFGSM(model, **LINF, decay=0.5),
    ),
    "targeted by label": (
        lambda model: PGD(model, **LINF, **PLAIN, target=TARGETS),
        lambda model, images, labels: linf_loop(model, images, TARGETS, sign=-1, **LINF),
        lambda peer, model: by_label(peer.PGD(model, **LINF, random_start=False)),
    ),
    "targeted, least likely": (
        lambda model: PGD(model, **LINF, **PLAIN, target=least_likely),
        partial(least_likely_loop, **LINF),
        lambda peer, model: to_least_likely(peer.PGD(model, **LINF, random_start=False)),
    ),
    "normalised inputs": (
        lambda model: PGD(model, **LINF, **PLAIN, mean=MEAN, std=STD),
        partial(normalised_loop, **LINF),
        lambda peer, model: on_normalised(peer.PGD(model, **LINF, random_start=False)),
    ),
}


@pytest.fixture
def problem():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(392, 5))
    # On this grid, and with steps on it, every sum of the loop is exact: rounding cannot tell the two apart.
    return model, torch.randint(257, (4, 3, 16, 16)) / 256, LABELS


def assert_same(row: str, ours: Tensor, theirs: Tensor, images: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 if row == "PGDL2" else 0)
    assert not torch.equal(ours, images)


@pytest.mark.parametrize("row", ROWS)
def test_the_usual_loop_gives_the_same_numbers(row, problem):
    model, images, labels = problem
    ours, loop, _ = ROWS[row]
    assert_same(row, ours(model)(images, labels), loop(model, images, labels), images)


@pytest.mark.parametrize("row", ROWS)
def test_torchattacks_itself_gives_the_same_numbers(row, problem):
    torchattacks = pytest.importorskip("torchattacks")
    model, images, labels = problem
    ours, _, theirs = ROWS[row]
    assert_same(row, ours(model)(images, labels), theirs(torchattacks, model)(images, labels), images)
