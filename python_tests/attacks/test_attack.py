"""Options that every attack has: seeds, restarts, masks, output_fn, warnings and settings."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from attacks.attack_cases import BUILDERS, OF_STEPS, image_batch, small_net
from torch import nn

from mdprop_ext.attacks import (
    FGSM,
    MIFGSM,
    PGD,
    CrossEntropy,
    FeaturePush,
    FeatureTargetAttack,
    Normalized,
    least_likely,
)


@pytest.mark.parametrize("build", BUILDERS)
def test_masked_pixels_do_not_change(build):
    x, y = image_batch()
    x[:, :, 0] = 1.5  # outside the bounds, and masked
    mask = torch.zeros(1, 5, 5)
    mask[:, 1:4, 1:4] = 2.0
    with pytest.warns(UserWarning, match="outside the attack's bounds"):
        found = build(small_net(), eps=0.1, mask=mask)(x, y)
    changed = (found != x).any(dim=0).any(dim=0)
    assert torch.equal(changed, mask[0] != 0)
    whole = build(small_net(), eps=0.1, mask=torch.ones(1))
    assert torch.equal(whole(x.clamp(0, 1), y, seed=1), build(small_net(), eps=0.1)(x.clamp(0, 1), y, seed=1))


@pytest.mark.parametrize("build", BUILDERS)
def test_nothing_to_do_returns_the_input_bit_for_bit(build):
    x, y = image_batch()
    x[0, 0, 0, 0] = -0.0
    for options in ({"eps": 0.0}, {"eps": torch.zeros(6)}, {"eps": torch.tensor(0.0)}, {"steps": 0}):
        if build is FGSM and "steps" in options:
            continue
        attack = build(small_net(), **options)
        for found in (attack(x, y), attack.run(x, y).x_adv):
            assert torch.equal(found.view(torch.int32), x.view(torch.int32))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_sample_does_not_depend_on_the_size_of_its_batch(norm):
    model = small_net().double().eval()
    x, y = image_batch(8, dtype=torch.float64)
    attack = PGD(model, norm=norm, eps=0.3, alpha=0.1, steps=3)
    for few in (1, 5):
        torch.testing.assert_close(attack(x[:few], y[:few], seed=7), attack(x, y, seed=7)[:few], rtol=0, atol=1e-9)
    assert not torch.equal(attack(x, y, seed=7), attack(x, y, seed=8))


def test_a_seed_leaves_the_generator_alone():
    x, y = image_batch()
    generator = torch.Generator().manual_seed(3)
    attack = PGD(small_net(), steps=1, generator=generator)
    before = generator.get_state()
    first = attack(x, y, seed=11)
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(attack.run(x, y, seed=11).x_adv, first)
    assert not torch.equal(attack(x, y), first)
    assert not torch.equal(generator.get_state(), before)
    with pytest.raises(ValueError, match="seed: expected"):
        attack(x, y, seed=-1)


@pytest.mark.parametrize("build", OF_STEPS)
def test_restarts_start_elsewhere_and_keep_the_best(build):
    x, y = image_batch()
    model = small_net().eval()
    starts = {}

    def note(step, state):
        if step == 0:
            starts[state.restart] = state

    options = {"random_start": True, "keep_best": True}
    result = build(model, eps=0.3, steps=2, restarts=3, callback=note, **options).run(x, y)
    assert sorted(starts) == [0, 1, 2]
    assert len({tuple(start.images.flatten().tolist()) for start in starts.values()}) == 3
    for start in starts.values():
        assert bool((result.objective >= start.values).all())


class Rich(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = small_net(outputs=4).eval()

    def forward(self, x):
        return {"embedding": self.net(x), "scale": 2.0, "more": (x, [x])}


@pytest.mark.parametrize("build", BUILDERS)
def test_output_fn_picks_from_any_output(build):
    x, y = image_batch()
    picked = build(Rich(), eps=0.1, output_fn=lambda output: output["embedding"]).run(x, y, seed=5)
    plain = build(Rich().net, eps=0.1).run(x, y, seed=5)
    assert torch.equal(picked.x_adv, plain.x_adv)
    assert torch.equal(picked.success, plain.success)
    with pytest.raises(TypeError, match=r"output: expected a tensor of .*, got dict; give the attack output_fn="):
        build(Rich())(x, y)
    with pytest.raises(TypeError, match="output_fn: expected a callable or None, got str"):
        build(Rich(), output_fn="embedding")


def test_objectives_take_whole_outputs_and_labels_of_any_form():
    x, y = image_batch()

    def both_heads(output, batch):
        return CrossEntropy()(output["embedding"], batch["y"]) + output["scale"] * output["more"][0].flatten(1).sum(1)

    result = PGD(Rich(), objective=both_heads, eps=0.1).run(x, {"y": y})
    assert bool(result.success.all())
    assert not bool(PGD(Rich(), objective=both_heads, mask=torch.zeros(1)).run(x, {"y": y}).success.any())
    found = {"embedding": Rich().net(result.x_adv), "scale": 2.0, "more": (result.x_adv,)}
    torch.testing.assert_close(result.objective, both_heads(found, {"y": y}).detach())


@pytest.mark.parametrize("build", BUILDERS)
def test_reported_success_is_what_a_second_look_finds(build):
    model = small_net().eval()
    x, y = image_batch(16)
    if build in (PGD, FGSM, MIFGSM):
        y = model(x).argmax(dim=1)
    recorded = {}
    attack = build(model.train(), eps=0.4, **({} if build is FGSM else {"alpha": 0.05}))
    if build in (FeaturePush, FeatureTargetAttack):
        rule = attack.target
        attack.target = lambda *arguments: recorded.setdefault("targets", rule(*arguments))
    result = attack.run(x, y)
    model.eval()
    targets = recorded.get("targets", y)
    with torch.no_grad():
        clean, found = model(x), model(result.x_adv)
        values = attack.objective(found, targets)
    again = (
        attack.objective.success(clean, found, targets)
        if hasattr(attack.objective, "success")
        else values > attack.objective(clean, targets)
    )
    assert torch.equal(result.success, again)
    assert torch.equal(result.objective, values)
    assert bool(result.success.any())


@pytest.mark.parametrize("build", BUILDERS)
def test_strides_of_the_images_change_nothing(build):
    x, y = image_batch()
    x[3:] = x[:3]
    attack = build(small_net(outputs=4), eps=0.1)
    expected = attack.run(x, y, seed=1)
    strided = torch.stack([x, x], dim=-1)[..., 0]
    turned = x.transpose(2, 3).contiguous().transpose(2, 3)
    expanded = x[:3].expand(2, 3, -1, -1, -1).flatten(0, 1)
    for images in (strided, turned, expanded):
        found = attack.run(images, y, seed=1)
        for name, value in vars(found).items():
            assert torch.equal(value, getattr(expected, name)), name


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_batch_without_samples_gives_a_report_without_samples(build, dtype):
    x, y = image_batch(dtype=dtype)
    attack = build(small_net().to(dtype), **({"early_stop": True} if build in (PGD, MIFGSM) else {}))
    whole, empty = attack.run(x, y), attack.run(x[:0], y[:0])
    assert len(empty) == 0
    for name, value in vars(empty).items():
        assert value.shape == (0, *getattr(whole, name).shape[1:]), name
        assert value.dtype == getattr(whole, name).dtype, name


@pytest.mark.parametrize("build", BUILDERS)
def test_channels_last_is_kept_end_to_end(build):
    x, y = image_batch()
    model = small_net(outputs=4).eval()
    plain = build(model, eps=0.1)(x, y, seed=1)
    formats = []
    model.register_forward_pre_hook(
        lambda module, arguments: formats.append(arguments[0].is_contiguous(memory_format=torch.channels_last))
    )
    found = build(model, eps=0.1, mean=0.4, std=0.2, mask=torch.ones(5, 5))
    images = found.run(x.contiguous(memory_format=torch.channels_last), y, seed=1).x_adv
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert formats
    assert all(formats)
    kept = build(model, eps=0.1)(x.contiguous(memory_format=torch.channels_last), y, seed=1)
    torch.testing.assert_close(kept, plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("count", "warned"), [(50, True), (10, True), (9, False)])
def test_a_tenth_of_samples_without_gradient_is_warned_of_once(count, warned):
    class Saturated(nn.Module):
        def forward(self, x):
            logits = x.flatten(1)[:, :2]
            return torch.where(x.flatten(1)[:, 2:3] > 0.5, logits, logits.round())

    x, y = torch.rand(100, 1, 2, 2), torch.zeros(100, dtype=torch.int64)
    x[:, 0, 1, 0] = (torch.arange(100) >= count).float()
    attack = FGSM(Saturated())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        attack(x, y)
        attack(x, y)
    found = [warning for warning in caught if "no gradient" in str(warning.message)]
    assert len(found) == warned
    for warning in found:
        assert f"no gradient at the starting points of {count} % of the samples" in str(warning.message)
        assert warning.filename == __file__


def test_settings_tell_attacks_apart_and_survive_json():
    def settings(model=None, build=PGD, **options):
        return json.dumps(build(small_net() if model is None else model, **options).settings())

    assert settings() == settings()
    changed = small_net()
    changed.head.bias.data[0] += 1e-3
    statistics = small_net()
    statistics.features[1].running_mean[0] += 1e-3
    others = [
        settings(changed),
        settings(statistics),
        settings(Normalized(small_net(), 0.48501, 0.2)),
        settings(Normalized(small_net(), 0.48502, 0.2)),  # a buffer outside the state dict, rounded in the repr
        settings(build=MIFGSM),
        settings(eps=0.1),
        settings(eps=torch.full((2,), 0.1)),
        settings(eps=torch.full((2,), 0.2)),
        settings(norm="l2"),
        settings(target=1),
        settings(target=least_likely),
        settings(mask=torch.ones(5)),
        settings(mask=torch.zeros(5)),
        settings(mean=0.5),
        settings(objective=lambda output, y: output.sum(1)),
        settings(output_fn=nn.Identity()),
        settings(early_stop=True),
        settings(branch="adv"),
    ]
    assert len({settings(), *others}) == len(others) + 1
    assert " at 0x" not in "".join(others)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mask": [1, 0]}, TypeError, "mask: expected a tensor that broadcasts to the images or None, got list"),
        ({"callback": 3}, TypeError, "callback: expected a callable or None, got int"),
        ({"restarts": 2, "keep_best": False}, ValueError, "restarts: more than one needs"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        PGD(small_net(), **options)
