from __future__ import annotations

import pytest
import torch
from own_parts import make_model
from recipe_cases import image_set

from mdprop_ext.nn import convert_multi_bn
from mdprop_ext.recipes import RobustnessMeter, clean_metrics, grid_settings, robust_grid, robust_protocol
from mdprop_ext.recipes.measurement import measure

IMAGES = image_set(4, 4)


def meter() -> RobustnessMeter:
    torch.manual_seed(0)
    model = convert_multi_bn(make_model(in_channels=1, embedding_dim=8, image_size=16), ("main", "st"))
    return RobustnessMeter(model, IMAGES, seed=3)


@pytest.mark.parametrize(("all_branches", "attacks"), [(True, 3 + 2 * 4 - 1), (False, 3 + 4 - 1)])
def test_all_measurements_and_every_attack_is_counted_once(all_branches: bool, attacks: int) -> None:
    settings = grid_settings(["st", "pgd"], [8.0, 16.0], [5])  # one of which is the protocol's
    seen: list[tuple[int, int]] = []
    used, fresh = meter(), meter()
    measured = measure(
        used, settings, all_branches=all_branches, observe=lambda done, total: seen.append((done, total))
    )
    assert seen == [(done, attacks) for done in range(attacks + 1)]
    assert measured == {
        "test": clean_metrics(fresh.model, IMAGES),
        "robust": robust_protocol(fresh),
        "robust_grid": robust_grid(fresh, settings, all_branches=all_branches),
    }
