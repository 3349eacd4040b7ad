from __future__ import annotations

import copy

import pytest
import torch
from recipe_cases import image_set

from mdprop_ext.metrics import retrieval_metrics
from mdprop_ext.nn.backbones import conv4
from mdprop_ext.recipes import (
    AttackSetting,
    MDProp,
    RobustnessMeter,
    clean_metrics,
    embed,
    grid_settings,
    robust_grid,
    robust_protocol,
)
from mdprop_ext.recipes.evaluation import build_attack, spread_batches

IMAGES = image_set(6, 4, seed=11)


def branched_model() -> torch.nn.Module:
    """A model whose branches differ."""
    torch.manual_seed(0)
    model = MDProp().prepare(conv4())
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def test_clean_metrics_are_those_of_branch_main_in_evaluation_mode() -> None:
    model = branched_model().train()
    metrics = clean_metrics(model, IMAGES)
    assert model.training
    with torch.no_grad():
        expected = retrieval_metrics(model.eval()(IMAGES.floats()), IMAGES.labels)
    assert set(metrics) == {
        *(f"recall_at_{k}" for k in (1, 2, 4, 8)),
        "map_at_r",
        "pi_ratio",
        "spectral_decay",
    }
    assert metrics["recall_at_1"] == expected["recall_at_1"]
    assert metrics["map_at_r"] == pytest.approx(expected["map_at_r"])


def test_frozen_modules_stay_frozen() -> None:
    model = branched_model().train()
    frozen = next(module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)).eval()
    embed(model, IMAGES)
    assert model.training
    assert not frozen.training


def test_an_attack_of_no_size_gives_clean_recall() -> None:
    model = branched_model()
    meter = RobustnessMeter(model, IMAGES, seed=0)
    clean = clean_metrics(model, IMAGES)["recall_at_1"]
    for setting in grid_settings(["st", "mt3", "pgd"], [0.0], [2]):
        assert meter.recall(setting) == pytest.approx(clean)


def test_stronger_attacks_leave_less() -> None:
    meter = RobustnessMeter(branched_model(), image_set(8, 6, seed=3), seed=0)
    recalls = [meter.recall(AttackSetting(attack="st", eps=eps / 255, steps=8)) for eps in (0, 8, 64)]
    assert recalls[0] > recalls[2]


@pytest.mark.parametrize("name", ["st", "mt3", "pgd"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_steps_are_as_long_as_the_protocol_says(name: str, steps: int) -> None:
    setting = AttackSetting(attack=name, eps=0.1, steps=steps)
    options = build_attack(branched_model(), setting, torch.Generator()).options
    assert options.alpha == pytest.approx(0.1 if steps == 1 else 0.25 / steps)


@pytest.mark.parametrize("name", ["st", "mt3", "pgd"])
def test_recall_is_that_of_attacked_queries_against_clean_images(name: str) -> None:
    model = branched_model().eval()
    setting = AttackSetting(attack=name, eps=24 / 255, steps=2, branch="st")
    generator = torch.Generator().manual_seed(7)
    (order,) = spread_batches(IMAGES.labels, 7)
    attacked = build_attack(model, setting, generator)(IMAGES.floats(order), IMAGES.labels[order])
    with torch.no_grad():
        queries, gallery = model(attacked), model(IMAGES.floats())
    distances = torch.cdist(queries.double(), gallery.double())
    distances[torch.arange(len(order)), order] = torch.inf
    expected = (IMAGES.labels[distances.argmin(1)] == IMAGES.labels[order]).double().mean()
    assert RobustnessMeter(model, IMAGES, seed=7).recall(setting) == pytest.approx(float(expected))
    assert float(expected) < clean_metrics(model, IMAGES)["recall_at_1"]


def test_the_seed_decides_and_the_model_is_left_alone() -> None:
    model = branched_model().train()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    setting = AttackSetting(attack="mt2", eps=0.2)
    hits = [RobustnessMeter(model, IMAGES, seed=seed).hits(setting) for seed in (4, 4)]
    assert torch.equal(*hits)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_worst_case_is_at_most_every_branch_and_counts_images() -> None:
    meter = RobustnessMeter(branched_model(), image_set(8, 6, seed=3), seed=0)
    settings = grid_settings(["st"], [24.0], [2])
    rows = robust_grid(meter, settings, all_branches=True)
    assert [row["branch"] for row in rows] == ["main", "st", "mt", "worst"]
    by_branch = {row["branch"]: row["recall_at_1"] for row in rows}
    assert by_branch["worst"] <= min(by_branch[name] for name in ("main", "st", "mt"))
    hits = [meter.hits(AttackSetting(attack="st", eps=24 / 255, steps=2, branch=name)) for name in ("main", "st", "mt")]
    assert not torch.equal(hits[0], hits[1]), "the branches do not differ in this case"
    assert by_branch["worst"] == pytest.approx(float((hits[0] & hits[1] & hits[2]).double().mean()))


def test_grid_rows_of_a_model_without_branches() -> None:
    torch.manual_seed(0)
    meter = RobustnessMeter(conv4(), IMAGES, seed=0)
    rows = robust_grid(meter, grid_settings(["st", "pgd"], [4.0], [1, 2]), all_branches=True)
    keys = [(row["attack"], row["targets"], row["eps_255"], row["steps"], row["branch"]) for row in rows]
    assert keys == [
        ("st", 1, 4.0, 1, "main"),
        ("st", 1, 4.0, 2, "main"),
        ("pgd", 0, 4.0, 1, "main"),
        ("pgd", 0, 4.0, 2, "main"),
    ]


def test_the_protocol() -> None:
    meter = RobustnessMeter(branched_model(), IMAGES, seed=0)
    result = robust_protocol(meter)
    assert list(result) == ["st", "mt2", "mt5"]
    for attack, measured in result.items():
        setting = AttackSetting(attack=attack, eps=16 / 255, steps=5, branch="main")
        assert measured == {"recall_at_1": meter.recall(setting)}


def test_batches_spread_the_classes() -> None:
    labels = torch.cat([torch.zeros(500, dtype=torch.int64), torch.arange(1, 40).repeat_interleave(4)])
    batches = spread_batches(labels, seed=0)
    assert sorted(torch.cat(batches).tolist()) == list(range(len(labels)))
    assert max(len(batch) for batch in batches) <= 256
    for batch in batches:
        assert len(labels[batch].unique()) == 40


def test_every_batch_has_two_classes_even_if_one_class_is_almost_all() -> None:
    labels = torch.cat([torch.zeros(1), torch.ones(900), torch.full((2,), 2.0)]).long()
    batches = spread_batches(labels, seed=0)
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(903))
    assert all(labels[batch].unique().numel() > 1 for batch in batches)


def test_classes_of_one_image_do_not_count() -> None:
    images = image_set(3, 3)
    lonely = type(images)(images.images, torch.tensor([0, 0, 0, 1, 1, 1, 2, 3, 4]), ("a", "b", "c", "d", "e"))
    model = branched_model()
    meter = RobustnessMeter(model, lonely, seed=0)
    clean = retrieval_metrics(embed(model, lonely), lonely.labels, ks=(1,))["recall_at_1"]
    assert meter.hits(AttackSetting(attack="st", eps=0.0)).shape == (6,)
    assert meter.recall(AttackSetting(attack="st", eps=0.0)) == pytest.approx(clean)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"attack": "fgsm"}, "attacks: expected st, pgd or mt"),
        ({"attack": "mt"}, "attacks: expected"),
        ({"attack": "mt0"}, "attacks: expected"),
        ({"attack": "st", "eps": -1.0}, "eps: expected"),
        ({"attack": "st", "steps": -1}, "steps: expected at least 0"),
    ],
)
def test_wrong_settings(options: dict[str, object], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        AttackSetting(**options)
