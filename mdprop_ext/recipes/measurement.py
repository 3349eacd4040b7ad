"""Everything that ``metrics.json`` says of a trained model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mdprop_ext.recipes.evaluation import (
    PROTOCOL_ATTACKS,
    AttackSetting,
    RobustnessMeter,
    clean_metrics,
    robust_grid,
    robust_protocol,
)


def measure(
    meter: RobustnessMeter,
    settings: Sequence[AttackSetting],
    *,
    all_branches: bool,
    observe: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measures a model, clean, by the package's protocol and under more attacks.

    Args:
        meter: Of the model and test images.
        settings: The attacks beside the protocol's.
        all_branches: Whether they go through every branch, see :func:`robust_grid`.
        observe: Called with the numbers of finished and of all attacks, at the start and after each of them.

    Returns:
        ``test``, ``robust`` and ``robust_grid`` of ``metrics.json``.

    Raises:
        ValueError: If the embeddings are not finite.
    """
    clean = clean_metrics(meter.model, meter.images)
    protocol = [AttackSetting(attack=attack) for attack in PROTOCOL_ATTACKS]
    branches = meter.branches if all_branches else ("main",)
    grid = [replace(setting, branch=branch) for setting in settings for branch in branches]
    attacks = dict.fromkeys([*protocol, *grid])  # each one once; the meter keeps what it measured
    for done, attack in enumerate(attacks):
        if observe is not None:
            observe(done, len(attacks))
        meter.hits(attack)
    if observe is not None:
        observe(len(attacks), len(attacks))
    return {
        "test": clean,
        "robust": robust_protocol(meter),
        "robust_grid": robust_grid(meter, settings, all_branches=all_branches),
    }
