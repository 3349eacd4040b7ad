"""Pushing embeddings away, distances of feature objectives, and targets that are given."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from attacks.attack_cases import FlatLinear, image_batch, small_net

from mdprop_ext.attacks import PGD, FeatureDistance, FeaturePush, FeatureTarget, FeatureTargetAttack

NAMES = ("euclidean", "sqeuclidean", "cosine", "dot")


def distance(name: str, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Distance of two vectors, by the textbook."""
    return {
        "euclidean": (a - b).norm(),
        "sqeuclidean": (a - b) @ (a - b),
        "cosine": 1 - a @ b / (a.norm() * b.norm()),
        "dot": -(a @ b),
    }[name]


@pytest.mark.parametrize("name", NAMES)
def test_objectives_are_mean_distances(name):
    embeddings, anchors = torch.randn(3, 4).double(), torch.randn(3, 5, 4).double()
    expected = torch.stack(
        [torch.stack([distance(name, embeddings[n], anchors[n, t]) for t in range(5)]).mean() for n in range(3)]
    )
    torch.testing.assert_close(FeatureDistance(distance=name)(embeddings, anchors), expected)
    torch.testing.assert_close(FeatureTarget(distance=name)(embeddings, anchors), -expected)
    single = torch.stack([distance(name, embeddings[n], anchors[n, 0]) for n in range(3)])
    torch.testing.assert_close(FeatureDistance(distance=name)(embeddings, anchors[:, 0]), single)


def test_equals_pgd_on_squared_drift():
    model = small_net(outputs=4)
    x, y = image_batch()
    push = FeaturePush(model, eps=0.1, alpha=0.03, steps=4).run(x, y, seed=3)
    drift = PGD(
        model,
        eps=0.1,
        alpha=0.03,
        steps=4,
        objective=lambda output, clean: (output - clean).square().sum(1),
        target=lambda output, labels, generator: output,
    ).run(x, y, seed=3)
    assert torch.equal(push.x_adv, drift.x_adv)
    assert torch.equal(push.objective, drift.objective)
    model.eval()
    torch.testing.assert_close(push.objective, (model(push.x_adv) - model(x)).square().sum(1).detach())


def test_pushes_along_the_only_direction_of_a_linear_model():
    weight = torch.randn(1, 50, dtype=torch.float64)
    x = torch.full((3, 2, 5, 5), 0.5, dtype=torch.float64)
    found = FeaturePush(FlatLinear(weight), eps=0.1, steps=10)(x)
    drift = (found - x).flatten(1) @ weight[0]
    torch.testing.assert_close(drift.abs(), (0.1 * weight.abs().sum()).expand(3))
    for sign in (-1.0, 1.0):  # an anchor on one side sends every image to the other
        anchors = (x.flatten(1) @ weight.T) - sign
        found = FeaturePush(FlatLinear(weight), anchors=anchors, eps=0.1, random_start=False, steps=3)(x)
        torch.testing.assert_close(found, x + sign * 0.1 * weight.sign().reshape(2, 5, 5), rtol=0, atol=1e-9)


def test_anchors_may_come_from_labels():
    model = small_net(outputs=4).eval()
    x, y = image_batch(9)
    centres = torch.stack([model(x)[y == label].mean(0) for label in range(3)]).detach()
    by_rule = FeaturePush(model, anchors=lambda output, labels, generator: centres[labels], eps=0.2).run(x, y, seed=1)
    by_hand = FeaturePush(model, anchors=centres[y], eps=0.2).run(x, y, seed=1)
    assert torch.equal(by_rule.x_adv, by_hand.x_adv)
    assert bool(by_rule.success.all())
    assert bool((FeatureDistance()(model(by_rule.x_adv), centres[y]) > FeatureDistance()(model(x), centres[y])).all())


@pytest.mark.parametrize("shape", [(6, 4), (6, 2, 4)])
@pytest.mark.parametrize("name", NAMES)
def test_feature_targets_may_be_given(shape, name):
    model = small_net(outputs=4).eval()
    x, _ = image_batch()
    # Codes of +-1, as hashing has them.
    codes = torch.randn(shape).sign()
    attack = FeatureTargetAttack(model, targets=codes, eps=0.2, steps=5, distance=name)
    result = attack.run(x)
    assert bool((result.objective > FeatureTarget(distance=name)(model(x), codes)).all())
    rule = FeatureTargetAttack(model, targets=lambda output, y, generator: codes, eps=0.2, steps=5, distance=name)
    assert torch.equal(rule(x, seed=1), attack(x, seed=1))


def test_an_anchor_image_is_a_target_by_its_embedding():
    model = small_net(outputs=4).eval()
    x, _ = image_batch(2)
    with torch.no_grad():
        target = model(x[1:])
    found = FeatureTargetAttack(model, targets=target, eps=1.0, alpha=0.02, steps=100, random_start=False).run(x[:1])
    assert float(found.objective) > 0.2 * -float((model(x[:1]) - target).detach().norm())
    assert bool(found.success)


def test_dot_distance_of_codes_is_hamming_distance():
    a, b = torch.randn(5, 16).sign(), torch.randn(5, 16).sign()
    hamming = (a != b).sum(1)
    torch.testing.assert_close((16 + FeatureDistance(distance="dot")(a, b)) / 2, hamming.float())
    torch.testing.assert_close(8 * FeatureDistance(distance="cosine")(a, b), hamming.float())
    assert F.cosine_similarity(a, b).shape == (5,)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"random_start": False}, ValueError, "random_start: expected True without anchors"),
        ({"anchors": 3}, TypeError, "anchors: expected embeddings, a callable or None, got int"),
        ({"distance": "manhattan"}, ValueError, "distance: expected one of euclidean, .*, got 'manhattan'"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        FeaturePush(small_net(), **options)


def test_anchors_of_another_shape_are_refused():
    x, _ = image_batch()
    with pytest.raises(ValueError, match=r"targets: expected embeddings \[6, T, 3\], got \[6, 5\]"):
        FeaturePush(small_net(), anchors=torch.ones(6, 5))(x)
    with pytest.raises(ValueError, match=r"targets: expected one target at least, got \[6, 0, 3\]"):
        FeaturePush(small_net(), anchors=torch.ones(6, 0, 3))(x)
