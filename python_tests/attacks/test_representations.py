"""What attacks and their results look like in a notebook: one line, whatever the size of their tensors."""

from __future__ import annotations

import torch
from attacks.attack_cases import BUILDERS, image_batch, small_net

from mdprop_ext.attacks import PGD, attack_loader, least_likely


def test_representations_are_short():
    model = small_net()
    assert repr(PGD(model)) == (
        "PGD(model=SmallNet, eps=8/255, alpha=2/255, steps=10, norm=linf, objective=CrossEntropy(targeted=False))"
    )
    attack = PGD(
        model, norm="l2", eps=0.5, alpha=torch.ones(6), target=least_likely, branch="adv", early_stop=True, restarts=2
    )
    assert repr(attack) == (
        "PGD(model=SmallNet, eps=0.5, alpha=tensor[6], steps=10, restarts=2, branch='adv', early_stop=True, norm=l2, "
        "target=least_likely, objective=CrossEntropy(targeted=True))"
    )
    assert repr(attack.options) == (
        "AttackOptions(eps=0.5, alpha=tensor[6], steps=10, restarts=2, branch='adv', early_stop=True)"
    )
    for build in BUILDERS:
        text = repr(build(model, callback=lambda step, state: None))
        assert len(text.splitlines()) == 1
        assert " at 0x" not in text
    x, y = image_batch()
    result = PGD(model, eps=0.1).run(x, y)
    assert repr(result).startswith("AttackResult(6 samples, success ")
    assert f"mean distance {float(result.distance.mean()):.4g}" in repr(result)
    assert len(result) == 6
    assert repr(PGD(model).run(x[:0], y[:0])) == "AttackResult(0 samples)"


def test_bounds_of_each_channel_are_told_in_short():
    bounds = (torch.zeros(3, 1, 1), 51 / 255)
    assert "bounds=(tensor[3, 1, 1], 51/255)" in repr(PGD(small_net(), bounds=bounds))


def test_states_tell_their_mean_objective():
    x, y = image_batch()
    states = []
    PGD(small_net(), eps=0.1, steps=1, callback=lambda step, state: states.append(state))(x, y)
    for state in states:
        objective = f"{float(state.values.mean()):.4g}"
        assert repr(state) == f"AttackState(restart 0, 6 samples, mean objective {objective})"


def test_batches_of_a_loader_tell_their_labels_by_shape():
    x, y = image_batch()
    attack = PGD(small_net(), steps=1, objective=lambda output, y: output.sum(1))
    found = list(attack_loader(attack, [(x, y), (x, {"labels": y}), x]))
    for batch, labels in zip(found, ("tensor[6]", "dict", "None"), strict=True):
        assert repr(batch) == f"AttackedBatch(index={batch.index}, y={labels}, result={batch.result!r})"
