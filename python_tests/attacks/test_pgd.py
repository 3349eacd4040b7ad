"""PGD: closed forms, constraints, what is kept, and its options."""

from __future__ import annotations

import math

import pytest
import torch
from attacks.attack_cases import FlatLinear, image_batch, small_net
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mdprop_ext.attacks import PGD, CrossEntropy


def first_output(output, targets):
    return output[:, 0]


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
    norm=st.sampled_from(["linf", "l2"]),
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
    delta = (result.x_adv.double() - x.double()).flatten(1)
    length = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert bool((length <= radius * (1 + (1e-12 if dtype == torch.float64 else 1e-6))).all())
    assert float(result.x_adv.min()) >= bounds[0]
    assert float(result.x_adv.max()) <= torch.tensor(bounds[1], dtype=dtype)
    torch.testing.assert_close(result.distance.double(), length, rtol=1e-6, atol=1e-7)
    for image, start, limit in zip(result.x_adv, x, eps, strict=True):
        assert torch.equal(image, start) == (limit == 0.0) or limit < 1e-6
    assert result.x_adv.dtype == dtype


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_images_stay_in_the_ball(norm, dtype):
    x, y = image_batch(dtype=dtype)
    found = PGD(small_net().to(dtype), norm=norm, eps=0.07, alpha=0.05, steps=2)(x, y)
    delta = (found.double() - x.double()).flatten(1)
    assert found.dtype == dtype
    assert 0 < float(delta.abs().amax() if norm == "linf" else delta.norm(dim=1).amax()) <= 0.07


@pytest.mark.parametrize("options", [{"eps": 0}, {"steps": 0}, {"eps": torch.zeros(6)}, {"eps": 0.0, "norm": "l2"}])
@pytest.mark.filterwarnings("ignore:x has values")
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


@pytest.mark.parametrize("norm", ["linf", "l2"])
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
    length = first.flatten(1).abs().amax(1) if norm == "linf" else first.flatten(1).norm(dim=1)
    assert bool((length > 0.08).all())
    assert bool((length <= 0.1).all())
    assert abs(float(first.mean())) < 0.01
    assert torch.equal(PGD(nn.Flatten(), random_start=False, alpha=0.0, **flat)(x), x)


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


def test_normalisation_lies_inside():
    class Normalised(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            mean, std = (torch.tensor(v).reshape(1, 2, 1, 1) for v in ([0.4, 0.6], [0.2, 0.3]))
            return self.model((x - mean) / std)

    model = small_net().eval()
    x, y = image_batch()
    inside = PGD(model, mean=[0.4, 0.6], std=(0.2, 0.3), random_start=False).run(x, y)
    outside = PGD(Normalised(model), random_start=False).run(x, y)
    assert torch.equal(inside.x_adv, outside.x_adv)
    assert torch.equal(inside.objective, outside.objective)
    assert float(inside.distance.max()) == pytest.approx(8 / 255)


def test_bounds_per_channel():
    x = torch.full((2, 2, 3, 3), 0.5)
    upper = torch.tensor([0.55, 1.0]).reshape(2, 1, 1)
    found = PGD(nn.Flatten(), objective=lambda output, y: output.sum(1), eps=0.2, alpha=0.2, bounds=(0.0, upper))(x)
    torch.testing.assert_close(found.amax(dim=(0, 2, 3)), torch.tensor([0.55, 0.7]))


@pytest.mark.parametrize(
    "wrap", [lambda logits: {"logits": logits}, lambda logits: ("hidden", logits)], ids=["dict", "tuple"]
)
def test_objectives_take_any_output(wrap):
    class Wrapped(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return wrap(self.model(x))

    def select(output):
        return output["logits"] if isinstance(output, dict) else output[1]

    model = small_net().eval()
    x, y = image_batch()
    expected = PGD(model, random_start=False).run(x, y)
    found = PGD(Wrapped(model), objective=CrossEntropy(select=select), random_start=False).run(x, y)
    assert torch.equal(found.x_adv, expected.x_adv)
    assert torch.equal(found.success, expected.success)
    with pytest.raises(TypeError, match=r"output: expected a tensor of logits, got (dict|tuple); pass select="):
        PGD(Wrapped(model))(x, y)


def test_success_agrees_with_the_prediction():
    model = small_net().eval()
    x, _ = image_batch(24)
    y = model(x).argmax(dim=1)
    result = PGD(model, eps=0.3, alpha=0.1).run(x, y)
    prediction = model(result.x_adv).argmax(dim=1)
    assert torch.equal(result.success, prediction != y)
    assert int(result.success.sum()) > 0
    target = (y + 1) % 3
    result = PGD(model, target=target, eps=0.3, alpha=0.1).run(x, y)
    assert torch.equal(result.success, model(result.x_adv).argmax(dim=1) == target)
    plain = PGD(model, objective=first_output, eps=0.3).run(x)
    assert torch.equal(plain.success, model(plain.x_adv)[:, 0] > model(x)[:, 0])
    assert torch.equal(plain.objective, model(plain.x_adv)[:, 0].detach())


def test_channels_last_and_empty_batches():
    model = small_net()
    x, y = image_batch()
    found = PGD(model, random_start=False)(x.contiguous(memory_format=torch.channels_last), y)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, PGD(model, random_start=False)(x, y))
    assert PGD(model)(x[:0], y[:0]).shape == (0, 2, 5, 5)


def test_images_outside_the_bounds_are_warned_of_once():
    x, y = image_batch()
    attack = PGD(small_net(), steps=1)
    with pytest.warns(UserWarning, match=r"x has values from .* to .*outside the attack's bounds"):
        found = attack(x * 255, y)
    assert float(found.max()) <= 1.0
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attack(x * 255, y)
        PGD(small_net(), steps=1, bounds=(0, 255))(x * 255, y)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"eps": -0.1}, ValueError, "eps: expected a finite number >= 0, got -0.1"),
        ({"eps": "big"}, TypeError, "eps: expected a number or a tensor"),
        ({"eps": torch.zeros(2, 2)}, ValueError, r"eps: .*\[2, 2\]"),
        ({"eps": torch.tensor([0.1, math.nan])}, ValueError, "eps: expected finite values"),
        ({"alpha": math.inf}, ValueError, "alpha: expected a finite number"),
        ({"steps": -1}, ValueError, "steps: expected at least 0, got -1"),
        ({"steps": 1.5}, TypeError, "steps: expected an integer, got float"),
        ({"restarts": 0}, ValueError, "restarts: expected at least 1"),
        ({"restarts": 2, "random_start": False}, ValueError, "restarts: more than one needs random_start=True"),
        ({"norm": "l7"}, ValueError, "norm: expected one of linf, l2, got 'l7'"),
        ({"bn_mode": "eval"}, ValueError, "bn_mode: expected one of running, batch, train, got 'eval'"),
        ({"bounds": (1, 0)}, ValueError, "bounds: expected lower < upper"),
        ({"bounds": 1}, TypeError, r"bounds: expected \(lower, upper\)"),
        ({"std": [1.0, 0.0]}, ValueError, "std: expected positive values"),
        ({"objective": 3}, TypeError, "objective: expected a callable"),
        ({"target": "cat"}, TypeError, "target: expected a class"),
    ],
)
def test_bad_options_are_refused_at_construction(options, error, message):
    with pytest.raises(error, match=message):
        PGD(small_net(), **options)


def test_bad_calls_are_refused():
    x, y = image_batch()
    model = small_net()
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got function"):
        PGD(lambda x: x)
    with pytest.raises(TypeError, match=r"x: expected a floating-point tensor, got torch\.uint8"):
        PGD(model)((x * 255).to(torch.uint8), y)
    with pytest.raises(ValueError, match="x: expected a batch"):
        PGD(model)(torch.rand(3))
    with pytest.raises(ValueError, match=r"y: expected one row a sample, 6 in all, got shape \[5\]"):
        PGD(model)(x, y[:5])
    with pytest.raises(ValueError, match="eps: expected one row a sample, 6 in all"):
        PGD(model, eps=torch.ones(4))(x, y)
    with pytest.raises(TypeError, match="y: cross entropy expects classes as int64"):
        PGD(model)(x)
    with pytest.raises(ValueError, match="mean: expected 1 or 2 values"):
        PGD(model, mean=[0.1, 0.2, 0.3])(x, y)
    with pytest.raises(
        ValueError, match=r"objective: expected one value a sample, a tensor of shape \[6\], got shape \[\]"
    ):
        PGD(model, objective=lambda output, y: output.sum())(x, y)
    with pytest.raises(ValueError, match="objective: expected values that depend on the input"):
        PGD(model, objective=lambda output, y: output.detach().sum(1))(x, y)
