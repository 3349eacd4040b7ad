"""Samples that succeed stop, keep what they have and leave the batch; the others are not disturbed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from attacks.attack_cases import image_batch, small_net
from torch import nn

from mdprop_ext.attacks import MIFGSM, PGD, CrossEntropy, FeatureTargetAttack


class Counting(nn.Module):
    """Counts the samples of every forward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.sizes: list[int] = []

    def forward(self, x):
        self.sizes.append(len(x))
        return self.model(x)


def case(count: int = 16):
    """A model in float64, where results hardly depend on the size of a batch, and labels that it gets right."""
    model = small_net().double().eval()
    x, _ = image_batch(count, dtype=torch.float64)
    return model, x, model(x).argmax(dim=1)


def first_successes(build, model, x, y, *, seed, steps, **options):
    """What early stopping should give, by attacks of 0, 1, 2, ... steps without it."""
    images, used = x.clone(), torch.full((len(x),), -1)
    for step in range(steps + 1):
        # One step of length 0 shows the starting point.
        shown = {**options, "alpha": 0.0, "steps": 1} if step == 0 else {**options, "steps": step}
        attack = build(model, keep_best=False, **shown)
        points = attack(x, y, seed=seed)
        new = (model(points).argmax(dim=1) != y) & (used < 0)
        images[new], used[new] = points[new], step
    return images, used


@pytest.mark.parametrize("build", [PGD, MIFGSM])
def test_each_sample_keeps_its_first_success(build):
    model, x, y = case()
    options = {"eps": 0.25, "alpha": 0.04, "steps": 8}
    expected, used = first_successes(build, model, x, y, seed=5, **options)
    result = build(model, early_stop=True, **options).run(x, y, seed=5)
    assert int(result.success.sum()) > 0
    assert len(result.steps_used[result.success].unique()) > 2, "all stop at once in this case"
    assert torch.equal(result.success, used >= 0)
    assert torch.equal(result.steps_used[result.success], used[result.success])
    torch.testing.assert_close(result.x_adv[result.success], expected[result.success], rtol=0, atol=1e-9)


def test_samples_that_go_on_find_what_they_find_without_it():
    model, x, y = case()
    options = {"eps": 0.06, "alpha": 0.02, "steps": 5}
    early = PGD(model, early_stop=True, **options).run(x, y, seed=1)
    whole = PGD(model, **options).run(x, y, seed=1)
    assert 0 < int(early.success.sum()) < len(x)
    assert torch.equal(early.success, whole.success)
    torch.testing.assert_close(early.x_adv[~early.success], whole.x_adv[~early.success], rtol=0, atol=1e-9)
    assert torch.equal(early.steps_used[~early.success], whole.steps_used[~early.success])


def test_only_the_unsuccessful_go_on():
    model, x, y = case()
    counting = Counting(model)
    PGD(counting, eps=0.1, alpha=0.02, steps=4, restarts=3, early_stop=True)(x, y, seed=2)
    sizes = counting.sizes[1:]  # the first pass is for the clean output
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == len(x)
    assert sizes[-1] < len(x)
    counting.sizes.clear()
    PGD(counting, eps=0.9, alpha=0.3, steps=30, restarts=3, early_stop=True)(x, 1 - (y == 0).long(), seed=2)
    assert sum(counting.sizes) < 30 * len(x), "all succeed within a few steps"
    assert 0 not in counting.sizes, "a batch without samples left goes on"


def test_restarts_of_what_is_left_start_where_they_would_in_the_whole_batch():
    model, x, y = case()
    starts = {}

    def noting(name):
        def note(step, state):
            if step == 0:
                starts[name, state.restart] = state

        return note

    for early_stop in (False, True):
        PGD(model, eps=0.1, steps=2, restarts=3, early_stop=early_stop, callback=noting(early_stop))(x, y, seed=6)
    for restart in range(3):
        left, whole = starts[True, restart], starts[False, restart]
        assert torch.equal(left.images, whole.images[left.rows])
    assert 0 < len(starts[True, 2].rows) < len(x)
    assert not torch.equal(starts[True, 2].rows, torch.arange(len(starts[True, 2].rows)))


def test_restarts_keep_every_success():
    model, x, y = case()
    options = {"eps": 0.15, "alpha": 0.04, "steps": 1, "early_stop": True}
    shares = [
        PGD(model, restarts=restarts, **options).run(x, y, seed=4).success.double().mean() for restarts in (1, 2, 8)
    ]
    assert shares == sorted(shares)
    assert shares[2] > shares[0]


def test_what_succeeds_already_is_given_back_unchanged():
    model, x, y = case()
    wrong = (y + 1) % 3
    result = PGD(model, random_start=False, early_stop=True).run(x, wrong)
    assert torch.equal(result.x_adv, x)
    assert bool(result.success.all())
    assert int(result.steps_used.sum()) == 0
    last = PGD(model, eps=0.02, steps=3, early_stop=True, keep_best=False).run(x, y)
    assert torch.equal(last.steps_used[~last.success], torch.full_like(last.steps_used, 3)[~last.success])


def test_per_sample_options_and_formats_survive_the_shrinking():
    model, x, y = case()
    x = (0.95 * x).contiguous(memory_format=torch.channels_last)
    y = model(x).argmax(dim=1)
    formats = []
    model.register_forward_pre_hook(
        lambda module, args: formats.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    eps = torch.linspace(0.02, 0.3, len(x), dtype=torch.float64)
    mask = torch.rand(len(x), 1, 5, 5) > 0.3
    upper = torch.linspace(0.97, 1.0, len(x), dtype=torch.float64).reshape(-1, 1, 1, 1)
    attack = PGD(
        model, eps=eps, alpha=eps / 4, mask=mask, bounds=(0.0, upper), steps=8, early_stop=True, random_start=False
    )
    result = attack.run(x, y)
    assert result.x_adv.is_contiguous(memory_format=torch.channels_last)
    assert all(formats)
    assert bool((result.distance <= eps * (1 + 1e-12)).all())
    assert torch.equal(result.x_adv.masked_select(~mask), x.masked_select(~mask))
    assert bool((result.x_adv <= torch.where(mask, upper, 1.0)).all())
    one_by_one = torch.cat(
        [
            PGD(
                model,
                eps=eps[i : i + 1],
                alpha=eps[i : i + 1] / 4,
                mask=mask[i : i + 1],
                bounds=(0.0, upper[i : i + 1]),
                steps=8,
                early_stop=True,
                random_start=False,
            )(x[i : i + 1], y[i : i + 1])
            for i in range(len(x))
        ]
    )
    torch.testing.assert_close(result.x_adv, one_by_one, rtol=0, atol=1e-9)


def test_targets_of_any_form_are_taken_along():
    model, x, y = case()
    wanted = {"labels": (y, [y.clone()]), "scale": torch.tensor(2.0), "name": "unused"}

    class Loss:
        def __call__(self, output, batch):
            assert len(batch["labels"][0]) == len(batch["labels"][1][0]) == len(output)
            assert batch["scale"].dim() == 0
            return batch["scale"] * CrossEntropy()(output, batch["labels"][0])

        def success(self, clean_output, output, batch):
            assert clean_output.shape == output.shape
            return CrossEntropy().success(clean_output, output, batch["labels"][1][0])

    found = PGD(model, eps=0.25, objective=Loss(), early_stop=True).run(x, wanted, seed=3)
    plain = PGD(model, eps=0.25, early_stop=True).run(x, y, seed=3)
    torch.testing.assert_close(found.x_adv, plain.x_adv, rtol=0, atol=1e-9)
    assert torch.equal(found.steps_used, plain.steps_used)


def test_feature_targets_stop_early_too():
    model, x, y = case()
    result = FeatureTargetAttack(model, targets=2, eps=0.3, steps=10, early_stop=True).run(x, y)
    assert bool(result.success.any())
    assert bool((result.steps_used[result.success] < 10).any())


def test_statistics_of_a_shrinking_batch_are_refused():
    with pytest.raises(ValueError, match="early_stop: expected bn_mode='running' beside it, got 'batch'"):
        PGD(small_net(), early_stop=True, bn_mode="batch")
    with pytest.raises(TypeError, match="early_stop: expected True or False, got int"):
        PGD(small_net(), early_stop=1)


@dataclass(frozen=True)
class Heads:
    logits: torch.Tensor
    scale: float


class WithHeads(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x):
        return Heads(self.model(x), 2.0)


class OfHeads:
    def __call__(self, output, y):
        return output.scale * CrossEntropy()(output.logits, y)

    def success(self, clean_output, output, y):
        assert clean_output.logits.shape == output.logits.shape
        return CrossEntropy().success(None, output.logits, y)


def test_outputs_that_are_data_classes_are_taken_along():
    model, x, y = case()
    found = PGD(WithHeads(model), eps=0.25, objective=OfHeads(), early_stop=True).run(x, y, seed=3)
    plain = PGD(model, eps=0.25, early_stop=True).run(x, y, seed=3)
    assert len(plain.steps_used.unique()) > 2
    torch.testing.assert_close(found.x_adv, plain.x_adv, rtol=0, atol=1e-9)
    assert torch.equal(found.steps_used, plain.steps_used)
