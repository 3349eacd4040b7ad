"""PGD: closed forms, constraints, what is kept, and randomness."""

from __future__ import annotations

import math

import pytest
import torch
from attacks.attack_cases import FlatLinear, image_batch, small_net
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mdprop_ext.attacks import FGSM, MIFGSM, PGD, FeaturePush, FeatureTargetAttack


def first_output(output, targets):
    return output[:, 0]


def lengths(delta: torch.Tensor, norm: str) -> torch.Tensor:
    order = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    return torch.linalg.vector_norm(delta.flatten(1), order, dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linf_on_a_linear_model_reaches_the_corner(dtype):
    x, _ = image_batch(dtype=dtype)
    weight = torch.randn(1, 50, dtype=dtype)
    found = PGD(FlatLinear(weight), objective=first_output, eps=0.1, alpha=0.03)(x)
    corner = (x + 0.1 * weight.sign().reshape(1, 2, 5, 5)).clamp(0, 1)
    torch.testing.assert_close(found, corner, rtol=0, atol=1e-6)


def test_l2_on_a_linear_model_follows_the_weight():
    x = torch.full((3, 2, 5, 5), 0.5, dtype=torch.float64)
    weight = torch.randn(1, 50, dtype=torch.float64)
    found = PGD(FlatLinear(weight), objective=first_output, norm="l2", eps=0.3, alpha=0.1, random_start=False)(x)
    torch.testing.assert_close(found, x + 0.3 * (weight / weight.norm()).reshape(1, 2, 5, 5), rtol=0, atol=1e-9)


def test_targeted_goes_the_other_way():
    x = torch.full((2, 2, 5, 5), 0.5, dtype=torch.float64)
    weight = torch.randn(2, 50, dtype=torch.float64)
    model, toward_0 = FlatLinear(weight), 0.1 * (weight[0] - weight[1]).sign().reshape(1, 2, 5, 5)
    options = {"eps": 0.1, "alpha": 0.1, "steps": 1, "random_start": False}
    labels = torch.tensor([0, 0])
    torch.testing.assert_close(PGD(model, **options)(x, labels), x - toward_0)
    for target in (0, labels, lambda output, y, generator: y):
        torch.testing.assert_close(PGD(model, target=target, **options)(x, labels), x + toward_0)


def test_target_rule_sees_the_clean_output():
    model = small_net().eval()
    x, y = image_batch()
    seen = []

    def least_likely(logits, labels, generator):
        seen.append((logits, labels))
        return logits.argmin(dim=1)

    found = PGD(model, target=least_likely, random_start=False)(x, y)
    assert torch.equal(seen[0][0], model(x).detach())
    assert torch.equal(seen[0][1], y)
    assert not seen[0][0].requires_grad
    assert torch.equal(found, PGD(model, target=model(x).argmin(dim=1), random_start=False)(x, y))


@settings(max_examples=20, deadline=None)
@given(
    norm=st.sampled_from(["linf", "l2", "l1"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    eps=st.lists(st.floats(0.0, 0.5), min_size=4, max_size=4),
    steps=st.integers(1, 3),
    bounds=st.sampled_from([(0.0, 1.0), (-1.0, 2.0), (0.0, 0.999)]),
)
def test_ball_and_box_hold(norm, dtype, eps, steps, bounds):
    generator = torch.Generator().manual_seed(7)
    x = bounds[0] + (bounds[1] - bounds[0]) * torch.rand(4, 2, 5, 5, generator=generator, dtype=dtype)
    x[:, 0, 0] = bounds[1]
    radius = torch.tensor(eps, dtype=torch.float64)
    model = small_net().to(dtype)
    attack = PGD(model, norm=norm, eps=radius, alpha=radius / 2, steps=steps, bounds=bounds, generator=generator)
    result = attack.run(x, torch.tensor([0, 1, 2, 0]))
    length = lengths(result.x_adv.double() - x.double(), norm)
    assert bool((length <= radius * (1 + (1e-12 if dtype == torch.float64 else 1e-6))).all())
    assert float(result.x_adv.min()) >= bounds[0]
    assert float(result.x_adv.max()) <= torch.tensor(bounds[1], dtype=dtype)
    torch.testing.assert_close(result.distance.double(), length, rtol=1e-6, atol=1e-7)
    for image, start, limit in zip(result.x_adv, x, eps, strict=True):
        assert torch.equal(image, start) == (limit == 0.0) or limit < 1e-6
    assert result.x_adv.dtype == dtype


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.filterwarnings("ignore:the objective has no gradient")  # half starts in a small l1 ball are rounded away
def test_ball_and_box_hold_after_rounding_to_the_storage_type(norm, dtype):
    x, y = image_batch(dtype=dtype)
    x[:, 0, 0] = 1.0
    model = small_net().to(dtype)
    for attack in (
        PGD(model, norm=norm, eps=0.07, alpha=0.05, steps=2),
        FGSM(model, norm=norm, eps=0.07),
        FeaturePush(model, norm=norm, eps=0.07, steps=2),
        FeatureTargetAttack(model, norm=norm, eps=0.07),
        *([] if norm == "l1" else [MIFGSM(model, norm=norm, eps=0.07, steps=2)]),
    ):
        found = attack(x, y)
        assert found.dtype == dtype
        # Radius and differences in fp32, the type that the attack computes in.
        length = lengths(found.float() - x.float(), norm)
        assert 0 < float(length.max()) <= float(torch.tensor(0.07)), attack
        assert 0 <= float(found.min()) <= float(found.max()) <= 1


@pytest.mark.parametrize("options", [{"eps": 0}, {"steps": 0}, {"eps": torch.zeros(6)}, {"eps": 0.0, "norm": "l2"}])
@pytest.mark.filterwarnings("ignore:x has")
def test_nothing_to_do_returns_the_input_bit_for_bit(options):
    x, y = image_batch()
    x[0, 0, 0] = torch.tensor([-0.0, 1.5, -3.0, math.nan, math.inf])  # Neither bounds nor arithmetic may touch it.
    x = x.contiguous(memory_format=torch.channels_last)
    attack = PGD(small_net(), **options)
    for found in (attack(x, y), attack.run(x, y).x_adv):
        assert torch.equal(found.view(torch.int32), x.view(torch.int32))
        assert found.data_ptr() != x.data_ptr()
        assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.filterwarnings("ignore:x has values")
def test_sample_of_radius_zero_is_kept_bit_for_bit():
    x, y = image_batch()
    x[1, 0, 0, 0] = 1.5
    eps = torch.full((6,), 0.1)
    eps[1] = 0
    found = PGD(small_net(), eps=eps)(x, y)
    assert torch.equal(found[1], x[1])
    assert not torch.equal(found[0], x[0])


def test_best_iterate_is_kept():
    # Too long a step jumps over the maximum at 0.5 again and again: the last iterate is far from the best.
    x = torch.full((4, 1, 2, 2), 0.45)
    x[1:] -= torch.tensor([0.05, 0.1, 0.2]).reshape(3, 1, 1, 1)
    options = {
        "eps": 0.4,
        "alpha": 0.3,
        "steps": 6,
        "random_start": False,
        "objective": lambda output, y: -((output - 0.5) ** 2).sum(1),
    }
    best = PGD(nn.Flatten(), **options).run(x)
    last = PGD(nn.Flatten(), keep_best=False, **options).run(x)
    assert bool((best.objective >= last.objective).all())
    assert bool((best.objective > last.objective).any())
    assert int(best.steps_used[0]) == 0  # Its start was nearest.
    assert torch.equal(last.steps_used, torch.full((4,), 6))
    iterates = [x, *(PGD(nn.Flatten(), **{**options, "steps": k}, keep_best=False)(x) for k in range(1, 7))]
    values = torch.stack([options["objective"](image.flatten(1), None) for image in iterates])
    torch.testing.assert_close(best.objective, values.amax(0), rtol=0, atol=0)
    assert torch.equal(best.steps_used, values.argmax(0))


def test_restarts_only_help():
    x, y = image_batch()
    model = small_net().eval()
    one, more = (
        PGD(model, eps=0.2, steps=1, restarts=restarts, generator=torch.Generator().manual_seed(0)).run(x, y).objective
        for restarts in (1, 5)
    )
    assert bool((more >= one).all())
    assert bool((more > one).any())


@pytest.mark.filterwarnings("ignore:the objective has no gradient")
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_random_start_differs_from_image_to_image_and_call_to_call(norm):
    x = torch.full((4, 3, 8, 8), 0.5)
    flat = {
        "objective": lambda output, y: 0.0 * output.sum(1),
        "norm": norm,
        "eps": 0.1,
        "keep_best": False,
        "steps": 1,
    }
    attack = PGD(nn.Flatten(), alpha=0.0, **flat)
    first, second = attack(x) - x, attack(x) - x
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    length = lengths(first, norm)
    assert bool((length > 0.08).all())
    assert bool((length <= 0.1).all())
    assert abs(float(first.mean())) < 0.01
    assert torch.equal(PGD(nn.Flatten(), random_start=False, alpha=0.0, **flat)(x), x)


@pytest.mark.filterwarnings("ignore:the objective has no gradient")
def test_random_start_fills_the_l2_ball_uniformly():
    x = torch.full((4000, 2), 0.5, dtype=torch.float64)
    attack = PGD(
        nn.Flatten(),
        objective=lambda output, y: 0.0 * output.sum(1),
        norm="l2",
        eps=0.1,
        alpha=0.0,
        steps=1,
        keep_best=False,
    )
    share = ((attack(x) - x).norm(dim=1) / 0.1) ** 2  # In the plane the squared radius is uniform.
    assert abs(float(share.mean()) - 0.5) < 0.03
    assert abs(float(share.var()) - 1 / 12) < 0.01


def test_generators_make_results_reproducible():
    x, y = image_batch()
    model = small_net()

    def own_generator() -> torch.Tensor:
        attack = PGD(model, steps=1)
        return torch.stack([attack(x, y), attack(x, y)])

    def given_generator() -> torch.Tensor:
        return PGD(model, steps=1, generator=torch.Generator().manual_seed(5))(x, y)

    torch.manual_seed(11)
    first = own_generator()
    torch.manual_seed(11)
    assert torch.equal(own_generator(), first)
    torch.rand(1)
    assert not torch.equal(own_generator(), first)
    assert torch.equal(given_generator(), given_generator())
