"""What the migration guides promise: the same numbers as the loops and layers that users come from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mdprop_ext.attacks import PGD
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


def attack_loop(model: nn.Module, images: Tensor, labels: Tensor, *, eps: float, alpha: float, steps: int) -> Tensor:
    """PGD as it is usually written: mean loss, sign, two clamps."""
    adversarial = images
    for _ in range(steps):
        adversarial = adversarial.detach().requires_grad_()
        loss = nn.functional.cross_entropy(model(adversarial), labels)
        (gradient,) = torch.autograd.grad(loss, adversarial)
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


@pytest.fixture
def problem():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(392, 5))
    # On this grid, and with steps on it, every sum of the loop is exact: rounding cannot tell the two apart.
    images = torch.randint(257, (4, 3, 16, 16)) / 256
    return model, images, torch.tensor([0, 3, 1, 2])


def test_the_usual_loop_gives_the_same_bits(problem):
    options = {"eps": 8 / 256, "alpha": 2 / 256, "steps": 7}
    ours = PGD(problem[0], random_start=False, keep_best=False, **options)(*problem[1:])
    theirs = attack_loop(*problem, **options)
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, problem[1])


def test_the_usual_loop_in_l2_gives_the_same_numbers(problem):
    options = {"eps": 0.5, "alpha": 0.2, "steps": 5}
    ours = PGD(problem[0], norm="l2", random_start=False, keep_best=False, **options)(*problem[1:])
    torch.testing.assert_close(ours, l2_loop(*problem, **options), rtol=0, atol=1e-5)
