"""On linear models every attack has a closed form: the corner, the nearest boundary point, the knapsack."""

from __future__ import annotations

import math

import pytest
import torch
from attacks.attack_cases import FlatLinear
from torch import Tensor, nn

from mdprop_ext.attacks import FGSM, MIFGSM, PGD, least_likely

SIZE = 50
WIDE = (-100.0, 100.0)


class Halfspace(nn.Module):
    """Logits ``(0, w . x + b)``: class 1 where ``w . x + b > 0``."""

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), bias

    def forward(self, x: Tensor) -> Tensor:
        margin = x.flatten(1) @ self.weight + self.bias
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


def linear_case(count: int = 6) -> tuple[Halfspace, Tensor, Tensor, Tensor]:
    """Model, images, labels as predicted, and the margin of each image."""
    torch.manual_seed(3)
    model = Halfspace(torch.randn(SIZE, dtype=torch.float64), 0.3)
    x = torch.rand(count, 2, 5, 5, dtype=torch.float64)
    margin = (model(x)[:, 1]).detach()
    return model, x, (margin > 0).long(), margin


def sure_pgd(model, **options):
    """PGD whose steps reach the surface from any start."""
    return PGD(model, alpha=0.05, **options)


@pytest.mark.parametrize("build", [sure_pgd, FGSM, MIFGSM])
def test_linf_ends_at_the_corner_away_from_the_label(build):
    model, x, y, _ = linear_case()
    found = build(model, eps=0.1, bounds=WIDE)(x, y)
    sign = (2 * y - 1).double().reshape(-1, 1, 1, 1)
    torch.testing.assert_close(found, x - 0.1 * sign * model.weight.detach().sign().reshape(2, 5, 5), rtol=0, atol=1e-9)


@pytest.mark.parametrize("build", [sure_pgd, FGSM, MIFGSM])
def test_targets_turn_the_sign(build):
    model, x, y, _ = linear_case()
    away = build(model, eps=0.1, bounds=WIDE)(x, y)
    for target in (1 - y, least_likely, lambda logits, labels, generator: 1 - labels):
        torch.testing.assert_close(build(model, eps=0.1, bounds=WIDE, target=target)(x, y), away, rtol=0, atol=1e-9)
    back = build(model, eps=0.1, bounds=WIDE, target=y)(x, y)
    torch.testing.assert_close(back - x, x - away, rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_least_successful_radius_is_the_distance_to_the_boundary(norm):
    model, x, y, margin = linear_case()
    weight = model.weight.detach()
    dual = {"linf": weight.abs().sum(), "l2": weight.norm(), "l1": weight.abs().max()}[norm]
    distance = margin.abs() / dual
    for factor, succeeds in ((0.999, False), (1.001, True)):
        eps = factor * distance
        result = PGD(model, norm=norm, eps=eps, alpha=eps / 4, steps=60, bounds=WIDE).run(x, y)
        assert bool((result.success == succeeds).all()), (factor, result.success)
        torch.testing.assert_close(result.distance, eps, rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_one_step_has_length_and_direction_of_the_norm(norm):
    weight = torch.randn(1, SIZE, dtype=torch.float64)
    x = torch.full((3, 2, 5, 5), 0.5, dtype=torch.float64)
    objective = lambda output, y: output[:, 0]  # noqa: E731
    found = FGSM(FlatLinear(weight), norm=norm, eps=0.2, objective=objective)(x)
    greatest = torch.zeros_like(weight)
    greatest[0, weight.abs().argmax()] = 1.0
    direction = {"linf": weight.sign(), "l2": weight / weight.norm(), "l1": greatest * weight.sign()}[norm]
    torch.testing.assert_close(found, x + 0.2 * direction.reshape(1, 2, 5, 5), rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_one_step_goes_its_whole_length_through_the_pixels_that_a_mask_shows(norm):
    weight = torch.randn(1, SIZE, dtype=torch.float64)
    hidden = weight.abs() >= weight.abs().topk(5).values.min()  # those that every norm would take first
    x = torch.full((3, 2, 5, 5), 0.5, dtype=torch.float64)
    options = {"norm": norm, "eps": 0.2, "objective": lambda output, y: output[:, 0]}
    found = FGSM(FlatLinear(weight), mask=~hidden.reshape(2, 5, 5), **options)(x)
    expected = FGSM(FlatLinear(weight.masked_fill(hidden, 0)), **options)(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    order = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    torch.testing.assert_close((found - x).flatten(1).norm(order, dim=1), torch.full((3,), 0.2).double())


def test_l1_in_a_box_fills_the_pixels_of_the_greatest_weights():
    torch.manual_seed(5)
    weight = torch.randn(1, SIZE, dtype=torch.float64)
    x = torch.rand(4, 2, 5, 5, dtype=torch.float64)
    eps = 6.0
    attack = PGD(FlatLinear(weight), norm="l1", eps=eps, alpha=0.3, steps=400, objective=lambda output, y: output[:, 0])
    reached = attack.run(x).objective - (x.flatten(1) @ weight[0])
    room = torch.where(weight > 0, 1 - x.flatten(1), x.flatten(1))
    order = weight[0].abs().argsort(descending=True)
    for image in range(len(x)):
        best, left = 0.0, eps
        for pixel in order.tolist():
            used = min(left, float(room[image, pixel]))
            best, left = best + used * float(weight[0, pixel].abs()), left - used
        assert best * 0.98 < float(reached[image]) <= best * (1 + 1e-6)


def test_momentum_is_the_published_recurrence():
    class Bowl(nn.Module):
        """Gradients that change along the way."""

        def forward(self, x):
            return -((x.flatten(1) - 0.5) ** 2) * torch.linspace(0.1, 3.0, SIZE, dtype=x.dtype)

    x = torch.rand(3, 2, 5, 5, dtype=torch.float64)
    eps, alpha, steps, decay = 0.3, 0.09, 7, 0.7
    found = MIFGSM(Bowl(), eps=eps, alpha=alpha, steps=steps, decay=decay, objective=lambda output, y: output.sum(1))(x)
    point, velocity = x.clone(), torch.zeros_like(x)
    for _ in range(steps):
        gradient = (-2 * (point.flatten(1) - 0.5) * torch.linspace(0.1, 3.0, SIZE, dtype=x.dtype)).reshape(x.shape)
        velocity = decay * velocity + gradient / gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
        point = (x + (point + alpha * velocity.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    torch.testing.assert_close(found, point, rtol=0, atol=1e-9)
    forgetful = MIFGSM(Bowl(), eps=eps, alpha=alpha, steps=steps, decay=0.0, objective=lambda out, y: out.sum(1))(x)
    options = {"eps": eps, "alpha": alpha, "steps": steps, "random_start": False, "keep_best": False}
    assert torch.equal(forgetful, PGD(Bowl(), objective=lambda out, y: out.sum(1), **options)(x))
    assert not torch.equal(forgetful, found)


@pytest.mark.parametrize("decay", [-0.1, math.nan, math.inf])
def test_momentum_options(decay):
    model = linear_case()[0]
    with pytest.raises(ValueError, match="momentum: expected a finite number >= 0"):
        MIFGSM(model, decay=decay)
    with pytest.raises(TypeError, match="momentum: expected a number, got str"):
        MIFGSM(model, decay=str(decay))
    with pytest.raises(ValueError, match="norm: expected one of linf, l2, got 'l1'"):
        MIFGSM(model, norm="l1")
    assert MIFGSM(model, eps=0.4, steps=8).options.alpha == pytest.approx(0.05)
    assert MIFGSM(model, eps=0.4, steps=0).options.alpha == 0.4
