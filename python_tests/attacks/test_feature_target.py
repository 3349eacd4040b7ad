"""The feature-space attack: its targets, its objective, and the branch that it goes through."""

from __future__ import annotations

import pytest
import torch
from attacks.attack_cases import FlatLinear, fingerprint, image_batch, small_net
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mdprop_ext.attacks import FeatureTarget, FeatureTargetAttack, OtherEmbeddings
from mdprop_ext.nn import convert_multi_bn, strip_branches, use_branch


@settings(max_examples=40, deadline=None)
@given(labels=st.lists(st.integers(0, 3), min_size=2, max_size=12), count=st.integers(1, 6), seed=st.integers(0, 99))
def test_targets_have_another_label_and_are_distinct(labels, count, seed):
    y = torch.tensor(labels)
    rule = OtherEmbeddings(count)
    if len(set(labels)) == 1:
        with pytest.raises(ValueError, match="y: targets need images of two labels at least"):
            rule.indices(y, torch.Generator())
        return
    indices = rule.indices(y, torch.Generator().manual_seed(seed))
    assert indices.shape == (len(labels), count)
    for own, row in zip(labels, indices.tolist(), strict=True):
        others = [position for position, label in enumerate(labels) if label != own]
        assert set(row) <= set(others)
        assert len(set(row)) == min(count, len(others))


def test_every_other_image_is_drawn_equally_often():
    y = torch.tensor([0, 0, 1, 1, 2])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([OtherEmbeddings(2).indices(y, generator)[0] for _ in range(1500)])
    for position in (0, 1):
        shares = torch.bincount(drawn[:, position], minlength=5) / 1500
        torch.testing.assert_close(shares, torch.tensor([0, 0, 1, 1, 1]) / 3, atol=0.05, rtol=0)


def test_without_labels_any_other_image_is_a_target():
    embeddings = torch.arange(4.0).reshape(4, 1)
    targets = OtherEmbeddings(3)(embeddings, None, torch.Generator().manual_seed(0))
    assert [sorted(row) for row in targets.flatten(1).tolist()] == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    with pytest.raises(ValueError, match="y: targets need images of two labels"):
        FeatureTargetAttack(FlatLinear(torch.ones(1, 4)))(torch.rand(1, 4))


def test_objective_equals_a_plain_loop():
    torch.manual_seed(2)
    output = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.randn(4, 5, 3, dtype=torch.float64)
    expected = [-sum(float((output[n] - targets[n, t]).detach().norm()) for t in range(5)) / 5 for n in range(4)]
    values = FeatureTarget()(output, targets)
    assert values.tolist() == pytest.approx(expected)
    values.sum().backward()
    difference = targets - output.detach().unsqueeze(1)
    torch.testing.assert_close(output.grad, (difference / difference.norm(dim=2, keepdim=True)).mean(1))


@pytest.mark.parametrize("targets", [1, 3])
def test_one_step_equals_a_plain_loop(targets):
    model = small_net(outputs=4).eval()
    x, y = image_batch(8)
    attack = FeatureTargetAttack(
        model, targets=targets, eps=0.05, random_start=False, generator=torch.Generator().manual_seed(4)
    )
    recorded = {}

    def recording(output, labels, generator):
        recorded["targets"] = OtherEmbeddings(targets)(output, labels, generator)
        return recorded["targets"]

    attack.target = recording
    found = attack(x, y)
    clean = model(x).detach()
    expected = x.clone()
    for n in range(len(x)):
        image = x[n : n + 1].clone().requires_grad_()
        distance = 0.0
        for t in range(targets):
            target = recorded["targets"][n, t]
            assert [label for label, row in zip(y, clean, strict=True) if torch.equal(row, target)] != [y[n]]
            distance = distance + (model(image)[0] - target).norm() / targets
        (gradient,) = torch.autograd.grad(distance, image)
        expected[n] = (x[n] - 0.05 * gradient[0].sign()).clamp(0, 1)
    # A gradient of almost zero may differ in sign between a batch and a single image.
    assert float((found - expected).abs().gt(1e-6).float().mean()) < 0.01


def test_pulls_towards_the_targets():
    torch.manual_seed(0)
    model = small_net(outputs=4).eval()
    x, y = image_batch(9)
    one, many = (
        FeatureTargetAttack(model, eps=0.2, steps=steps, targets=2, generator=torch.Generator().manual_seed(0)).run(
            x, y
        )
        for steps in (1, 20)
    )
    assert bool((many.objective > one.objective).float().mean() > 0.8)
    assert float(many.distance.max()) == pytest.approx(0.2)


def test_success_means_nearer_to_targets_than_to_the_clean_embedding():
    clean, targets = torch.zeros(3, 2), torch.tensor([[[2.0, 0.0]], [[2.0, 0.0]], [[2.0, 0.0]]])
    output = torch.tensor([[0.5, 0.0], [1.5, 0.0], [0.0, 0.0]])
    assert FeatureTarget().success(clean, output, targets).tolist() == [False, True, False]
    x, y = image_batch()
    assert not bool(FeatureTargetAttack(small_net(), eps=0).run(x, y).success.any())


@pytest.mark.parametrize(("steps", "alpha"), [(0, 0.2), (1, 0.2), (5, 0.1)])
def test_default_step_and_what_is_kept(steps, alpha):
    options = FeatureTargetAttack(small_net(), eps=0.2, steps=steps).options
    assert options.alpha == pytest.approx(alpha)
    assert options.keep_best == (steps > 1)
    per_sample = FeatureTargetAttack(small_net(), eps=torch.full((2,), 0.2), steps=steps).options
    torch.testing.assert_close(per_sample.alpha, torch.full((2,), alpha))


class CountingNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = small_net()
        self.calls: list[bool] = []

    def forward(self, x):
        self.calls.append(torch.is_grad_enabled())
        return self.net(x)


def test_one_step_costs_one_forward_for_targets_and_one_with_gradient():
    model = CountingNet()
    FeatureTargetAttack(model)(*image_batch())
    assert model.calls == [False, True]


def test_attack_through_a_branch_equals_that_branch_alone():
    model = convert_multi_bn(small_net(outputs=4), ("main", "st")).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and hasattr(module, "aux_bn"):
            module.aux_bn[0].running_mean.normal_(0.0, 0.3)
            module.aux_bn[0].running_var.uniform_(0.2, 3.0)
    x, y = image_batch()

    def attack(net: nn.Module, branch: str | None, bn_mode: str = "running") -> torch.Tensor:
        options = {"targets": 2, "eps": 0.1, "steps": 2, "branch": branch, "bn_mode": bn_mode}
        return FeatureTargetAttack(net, generator=torch.Generator().manual_seed(1), **options)(x, y)

    before = fingerprint(model)
    found = {branch: attack(model, branch) for branch in ("main", "st", None)}
    in_batch = attack(model, "st", "batch")
    assert fingerprint(model) == before
    assert torch.equal(found[None], found["main"])
    assert not torch.equal(found["st"], found["main"])
    with use_branch(model, "st"):
        assert torch.equal(attack(model, None), found["st"])
        assert torch.equal(attack(model, "main"), found["main"])
        assert torch.equal(attack(model, None), found["st"])
    with torch.inference_mode(), use_branch(model, "st"):
        assert torch.equal(attack(model, None), found["st"])
    main, single = (strip_branches(convert_copy(model), keep=keep) for keep in ("main", "st"))
    torch.testing.assert_close(attack(main, None), found["main"])
    torch.testing.assert_close(attack(single, None), found["st"])
    torch.testing.assert_close(attack(single, None, "batch"), in_batch)


def convert_copy(model: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(model)


def test_train_mode_updates_only_the_statistics_of_its_branch():
    model = convert_multi_bn(small_net(outputs=4), ("main", "st")).train()
    layer = model.features[1]
    main, auxiliary = layer.running_mean.clone(), layer.aux_bn[0].running_mean.clone()
    FeatureTargetAttack(model, branch="st", bn_mode="train")(*image_batch())
    assert torch.equal(layer.running_mean, main)
    assert not torch.equal(layer.aux_bn[0].running_mean, auxiliary)


def test_unknown_branches_are_refused_and_leave_the_model_alone():
    model = convert_multi_bn(small_net(), ("main", "st")).train()
    attack = FeatureTargetAttack(model, branch="mt")
    before = fingerprint(model)
    with pytest.raises(ValueError, match="mt"):
        attack(*image_batch())
    assert fingerprint(model) == before


def test_embeddings_are_selected_from_any_output():
    class Named(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return {"embedding": self.model(x), "logits": None}

    model = small_net(outputs=4).eval()
    x, y = image_batch()
    plain = FeatureTargetAttack(model, generator=torch.Generator().manual_seed(0)).run(x, y)
    selected = FeatureTargetAttack(
        Named(model), output_fn=lambda output: output["embedding"], generator=torch.Generator().manual_seed(0)
    ).run(x, y)
    assert torch.equal(plain.x_adv, selected.x_adv)
    assert torch.equal(plain.success, selected.success)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"targets": 0}, ValueError, "targets: expected at least 1, got 0"),
        ({"targets": 2.0}, TypeError, "targets: expected an integer, got float"),
        ({"eps": -1.0}, ValueError, "eps: expected a finite number >= 0"),
        ({"steps": -3}, ValueError, "steps: expected at least 0, got -3"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        FeatureTargetAttack(small_net(), **options)


def test_bad_labels_are_refused():
    x, y = image_batch()
    attack = FeatureTargetAttack(small_net())
    with pytest.raises(
        ValueError, match="y: targets need images of two labels at least in the batch, got one label for 6"
    ):
        attack(x, torch.zeros(6, dtype=torch.int64))
    with pytest.raises(TypeError, match="y: expected integer labels"):
        attack(x, y.float())


def test_embeddings_and_targets_of_another_kind_are_refused():
    objective, embeddings = FeatureTarget(), torch.rand(3, 4)
    with pytest.raises(TypeError, match=r"targets: expected embeddings \[N, T, D\], got list"):
        objective(embeddings, [1, 2, 3])
    with pytest.raises(ValueError, match=r"output: expected .* of shape \[N, K\], got \[3, 4, 1\]"):
        objective(embeddings[..., None], embeddings)
