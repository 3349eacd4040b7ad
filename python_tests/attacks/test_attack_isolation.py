"""Attacks change nothing outside of themselves, in whatever mode they are called."""

from __future__ import annotations

import pytest
import torch
from attacks.attack_cases import fingerprint, image_batch, small_net
from torch import nn

from mdprop_ext.attacks import FGSM, MIFGSM, PGD, Attack, FeaturePush, FeatureTargetAttack, random_other_class

NAMES = ("pgd", "fgsm", "mifgsm", "push", "target", "early")


def attacks(model: nn.Module, **options: object) -> dict[str, Attack]:
    """Every attack, with whatever runs code of its own."""
    every = {
        "pgd": PGD(model, steps=2, norm="l1", restarts=2, **options),
        "fgsm": FGSM(model, target=random_other_class, **options),
        "mifgsm": MIFGSM(model, steps=2, norm="l2", callback=lambda step, state: None, **options),
        "push": FeaturePush(model, steps=2, mask=torch.ones(5, 5), **options),
        "target": FeatureTargetAttack(model, targets=2, **options),
    }
    if options.get("bn_mode", "running") == "running":
        every["early"] = PGD(model, eps=0.2, steps=3, restarts=2, early_stop=True, **options)
    return every


def prepared_net() -> nn.Module:
    """A model in training mode with frozen parts and gradients, as in the middle of someone's training loop."""
    model = small_net()
    model.train()
    model.features[1].eval()
    model.features[0].weight.requires_grad_(False)
    x, y = image_batch()
    nn.functional.cross_entropy(model(x), y).backward()
    return model


@pytest.mark.parametrize(
    ("name", "bn_mode"),
    [*((name, "running") for name in NAMES), *((name, "batch") for name in NAMES if name != "early")],
)
@pytest.mark.parametrize("report", [False, True], ids=["call", "run"])
def test_model_and_random_state_stay_the_same(bn_mode, name, report):
    model = prepared_net()
    x, y = image_batch()
    kept = x.clone()
    attack = attacks(model, bn_mode=bn_mode)[name]
    before = fingerprint(model)
    attacked = attack.run(x, y).x_adv if report else attack(x, y)
    assert fingerprint(model) == before
    assert torch.equal(x, kept)
    assert not torch.equal(attacked, x)
    assert not attacked.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_construction_reads_the_random_state_and_leaves_it_alone(name):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = attacks(nn.Identity())[name]
    assert torch.equal(torch.get_rng_state(), state)
    second = attacks(nn.Identity())[name]
    assert torch.equal(second.generator.get_state(), first.generator.get_state())
    torch.rand(1)
    third = attacks(nn.Identity())[name]
    assert not torch.equal(third.generator.get_state(), first.generator.get_state())


def test_fingerprint_sees_each_kind_of_change():
    def changed(change) -> bool:
        model = prepared_net()
        before = fingerprint(model)
        change(model)
        return fingerprint(model) != before

    assert changed(lambda model: model.head.weight.data.add_(1e-6))
    assert changed(lambda model: model.features[1].running_mean.add_(1e-6))
    assert changed(lambda model: model.features[1].train())
    assert changed(lambda model: model.head.bias.requires_grad_(False))
    assert changed(lambda model: model.head.bias.grad.mul_(2.0))
    assert changed(lambda model: torch.rand(1))
    assert not changed(lambda model: None)


def test_train_mode_updates_statistics_and_nothing_else():
    model = prepared_net()
    x, y = image_batch()
    flags = [(module.training, getattr(module, "track_running_stats", None)) for module in model.modules()]
    statistics = [buffer.clone() for buffer in model.buffers()]
    parameters = [(parameter.clone(), parameter.requires_grad) for parameter in model.parameters()]
    PGD(model, steps=2, keep_best=False, bn_mode="train")(x, y)
    assert [(module.training, getattr(module, "track_running_stats", None)) for module in model.modules()] == flags
    assert all(
        torch.equal(p, q) and p.requires_grad == grad
        for p, (q, grad) in zip(model.parameters(), parameters, strict=True)
    )
    assert not any(torch.equal(new, old) for new, old in zip(model.buffers(), statistics, strict=True))
    assert int(model.features[5].num_batches_tracked) == int(statistics[5]) + 2


def test_batch_mode_uses_statistics_of_the_batch():
    model, twin = small_net().eval(), small_net().eval()
    x, y = image_batch()
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(9.0)
    found, twin_found = (PGD(net, random_start=False, bn_mode="batch")(x, y) for net in (model, twin))
    assert torch.equal(found, twin_found)
    assert not torch.equal(found, PGD(model, random_start=False)(x, y))


def test_dropout_is_off():
    model = small_net().train()
    x, y = image_batch()
    evaluated = PGD(model.eval(), random_start=False)(x, y)
    assert torch.equal(PGD(model.train(), random_start=False)(x, y), evaluated)


class Failing(nn.Module):
    """Fails in its second forward pass, after drawing random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()
        self.calls = [0]

    def forward(self, x):
        self.calls[0] += 1
        if self.calls[0] % 2 == 0:
            torch.rand(3)
            raise RuntimeError("no luck")
        return self.net(x)


@pytest.mark.parametrize("bn_mode", ["running", "batch"])
def test_state_is_restored_when_the_model_raises(bn_mode):
    model = Failing().train()
    x, y = image_batch()
    attack = PGD(model, bn_mode=bn_mode)
    before = fingerprint(model.net)
    with pytest.raises(RuntimeError, match="no luck"):
        attack(x, y)
    assert fingerprint(model.net) == before


class Noisy(nn.Module):
    """Adds global random noise to its input, in evaluation mode too, and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()
        self.seen: list[torch.Tensor] = []

    def forward(self, x):
        noise = 0.1 * torch.randn_like(x)
        self.seen.append(noise)
        return self.net(x + noise)


def test_random_model_neither_moves_nor_foresees_the_random_state():
    model = Noisy()
    x, y = image_batch()
    attack = PGD(model, steps=2, keep_best=False)
    state = torch.get_rng_state()
    attack(x, y)
    assert torch.equal(torch.get_rng_state(), state)
    upcoming = 0.1 * torch.randn_like(x)
    assert not any(torch.equal(noise, upcoming) for noise in model.seen)
    assert not torch.equal(model.seen[0], model.seen[1])


def test_parameters_take_no_part_in_the_backward_pass():
    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_net()
            self.trainable: list[bool] = []

        def forward(self, x):
            self.trainable += [parameter.requires_grad for parameter in self.parameters()]
            return self.net(x)

    model = Watched()
    PGD(model, steps=1)(*image_batch())
    assert model.trainable
    assert not any(model.trainable)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_runs_in_every_gradient_mode(context):
    model = small_net().eval()
    expected = [attack.run(*image_batch(), seed=3) for attack in attacks(model).values()]
    with context():
        x, y = image_batch()
        found = [attack.run(x, y, seed=3) for attack in attacks(model).values()]
    assert len(found) == len(NAMES)
    for result, wanted in zip(found, expected, strict=True):
        assert torch.equal(result.x_adv, wanted.x_adv)
        assert torch.equal(result.objective, wanted.objective)


def test_inference_tensors_inside_labels_and_options():
    model = small_net().eval()
    with torch.inference_mode():
        x, y = image_batch()
        mean, std, eps = (
            torch.full((2,), 0.5),
            torch.full((2,), 0.25),
            torch.full((len(x),), 8 / 255, dtype=torch.float64),
        )
        found = PGD(
            model,
            objective=lambda output, batch: nn.functional.cross_entropy(output, batch["labels"], reduction="none"),
            mean=mean,
            std=std,
            eps=eps,
            random_start=False,
        )(x, {"labels": y, "more": [y, (x,)]})
    x, y = image_batch()
    assert torch.equal(found, PGD(model, mean=0.5, std=0.25, random_start=False)(x, y))


def test_targets_made_in_inference_mode():
    model = small_net().eval()
    x, y = image_batch()
    with torch.inference_mode():
        classes, codes = (y + 1) % 3, torch.ones(6, 3)
        found = PGD(model, target=classes)(x, y, seed=1), FeatureTargetAttack(model, targets=codes)(x, seed=1)
    assert torch.equal(found[0], PGD(model, target=(y + 1) % 3)(x, y, seed=1))
    assert torch.equal(found[1], FeatureTargetAttack(model, targets=torch.ones(6, 3))(x, seed=1))


def test_model_of_inference_tensors_is_refused():
    with torch.inference_mode():
        model = small_net()
    with pytest.raises(ValueError, match=r"model: .*parameter 'features.0.weight' created under torch.inference_mode"):
        PGD(model)(*image_batch())


def test_autocast_keeps_the_perturbation_and_later_gradients_exact():
    model = small_net().eval()
    x, y = image_batch()

    def weight_gradients(attacked: bool) -> list[torch.Tensor]:
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if attacked:
                found = FeatureTargetAttack(model, eps=0.3 / 255)(x, y)
                assert found.dtype == torch.float32
                assert 0 < float((found - x).abs().max()) <= 0.3 / 255
                assert torch.is_autocast_enabled("cpu")
            loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    # Autocast caches its casts of weights: an attack must not leave casts without gradient there.
    for with_attack, without in zip(weight_gradients(True), weight_gradients(False), strict=True):
        assert torch.equal(with_attack, without)


@pytest.mark.parametrize("name", NAMES)
def test_every_attack_runs_under_autocast(name):
    model = small_net().eval()
    x, y = image_batch()
    attack = attacks(model)[name]
    before = fingerprint(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = attack.run(x, y)
    assert fingerprint(model) == before
    assert result.x_adv.dtype == result.objective.dtype == torch.float32
    assert not torch.equal(result.x_adv, x)


def test_graph_built_before_the_attack_still_gives_gradients():
    model = small_net().eval()
    x, y = image_batch()
    expected = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), list(model.parameters()))
    loss = nn.functional.cross_entropy(model(x), y)
    PGD(model, bn_mode="batch")(x, y)
    loss.backward()
    assert all(torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), expected, strict=True))


def test_input_that_requires_a_gradient_gets_none():
    x, y = image_batch()
    x.requires_grad_()
    found = PGD(small_net())(x, y)
    assert x.grad is None
    assert not found.requires_grad
