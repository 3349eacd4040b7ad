from __future__ import annotations

from typing import Any

import pytest
import torch
from own_parts import Proxies
from recipe_cases import small_splits
from torch import Tensor, nn

from mdprop_ext.recipes import MDProp, Plain, Recipe, TrainConfig, train
from mdprop_ext.recipes._state import StateTree, joined_tree, split_tree, tree_on_cpu
from mdprop_ext.recipes.checkpoint import storable
from mdprop_ext.recipes.trainer import Record
from mdprop_ext.recipes.training import Training

CPU = torch.device("cpu")


def training(recipe: Recipe[Any] | None = None, **options: Any) -> Training:
    torch.manual_seed(0)
    config = TrainConfig(**{"classes_per_batch": 4, "embedding_dim": 8, **options})
    return Training(recipe or Plain(), small_splits().train, config, CPU)


def gradients(run: Training) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in run.model.parameters() if parameter.grad is not None]


def batches(run: Training, count: int) -> list[tuple[Tensor, Tensor]]:
    return [run.load_batch([first, first + 1, first + 6, first + 7]) for first in range(count)]


def test_accumulation_is_the_mean_of_the_batches_losses() -> None:
    run = training(learning_rate=1e-12)
    parts = []
    logs = [run.update([batch], 1e-12) | {"gradients": parts.append(gradients(run))} for batch in batches(run, 3)]
    together = run.update(batches(run, 3), 1e-12)
    assert together["loss"] == pytest.approx(sum(log["loss"] for log in logs) / 3, rel=1e-4)
    for joint, *each in zip(gradients(run), *parts, strict=True):
        torch.testing.assert_close(joint, torch.stack(each).mean(0), rtol=1e-3, atol=1e-5)
    assert run.step == 4


def test_gradients_are_clipped_together() -> None:
    run = training(clip_norm=1e-3)
    run.update(batches(run, 1), 1e-3)
    assert float(torch.stack([gradient.norm() for gradient in gradients(run)]).norm()) == pytest.approx(1e-3, rel=1e-3)


def test_bf16_steps_have_gradients_everywhere_and_float32_weights() -> None:
    run = training(MDProp(), amp="bf16")
    seen: dict[str, set[torch.dtype]] = {"attack": set(), "step": set()}

    def look(module: nn.Module, inputs: object, output: Tensor) -> None:
        seen["step" if module.training else "attack"].add(output.dtype)

    first = next(module for module in run.model.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_hook(look)
    run.update([run.load_batch([0, 1, 6, 7, 12, 13])], 1e-3)
    assert seen == {"attack": {torch.bfloat16}, "step": {torch.bfloat16}}
    assert len(gradients(run)) == len(list(run.model.parameters()))
    assert all(bool(gradient.abs().sum() > 0) for gradient in gradients(run))
    assert {parameter.dtype for parameter in run.model.parameters()} == {torch.float32}
    run.best.update(1, run.model, small_splits().val)
    assert seen["attack"] == {torch.bfloat16, torch.float32}, "measurements are made in float32"


def test_what_the_criterion_learns_is_trained() -> None:
    run = training(criterion="own_parts:Proxies")
    assert isinstance(run.recipe.criterion, Proxies)
    assert run.recipe.criterion.proxies.shape == (6, 8)
    before = run.recipe.criterion.proxies.detach().clone()
    run.update(batches(run, 1), 1e-2)
    assert not torch.equal(run.recipe.criterion.proxies, before)


def history(**options: Any) -> list[Record]:
    records: list[Record] = []
    config = TrainConfig(**{"model": "own_parts:make_model", "classes_per_batch": 4, "embedding_dim": 8, **options})
    train(Plain(), small_splits(), config, observe=records.append)
    return records


def test_training_stops_after_patience_runs_out() -> None:
    records = history(steps=60, validate_every=2, patience=2, learning_rate=0.5)
    scores = [(r["val_recall_at_1"], r["val_map_at_r"]) for r in records if "val_recall_at_1" in r]
    best = scores.index(max(scores))
    assert len(scores) == best + 3
    assert records[-1]["step"] == 2 * len(scores) < 60
    assert records[-1]["steps"] == 60


def test_the_learning_rate_is_logged() -> None:
    records = history(steps=2, schedule="linear", learning_rate=0.1)
    assert [record["learning_rate"] for record in records] == [0.1, 0.05]


def test_epochs_count_batches_also_when_several_make_a_step() -> None:
    # 36 images in batches of 4 classes x 2 images are 4 batches an epoch.
    assert len(history(epochs=2, accumulate=3)) == 3


def test_states_are_saved_at_the_first_step_then_regularly_and_at_the_end() -> None:
    saved: list[int] = []
    config = TrainConfig(model="own_parts:make_model", steps=5, checkpoint_every=2, classes_per_batch=4)
    train(Plain(), small_splits(), config, save=lambda state: saved.append(state["step"]))
    assert saved == [1, 2, 4, 5]


@pytest.mark.parametrize(
    ("values", "message"),
    [({"drift": 1.0}, "expected its step to return 'loss', got drift"), ({"loss": 1.0, "step": 2.0}, "got step")],
)
def test_what_a_step_returns_is_checked(values: dict[str, float], message: str) -> None:
    class Wrong(Plain):
        def step(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
            return {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}

    run = training(Wrong())
    with pytest.raises(ValueError, match=message):
        run.update(batches(run, 1), 0.1)
    assert run.step == 0


def test_patience_goes_on_where_it_was() -> None:
    states: list[StateTree] = []
    options = {"model": "own_parts:make_model", "classes_per_batch": 4, "embedding_dim": 8, "learning_rate": 0.5}
    config = TrainConfig(**options, steps=60, validate_every=1, checkpoint_every=1, patience=2)
    train(Plain(), small_splits(), config, save=lambda state: states.append(tree_on_cpu(state)))
    assert [state["best"]["waiting"] for state in states[-2:]] == [1, 2]
    records: list[Record] = []
    for state in states[-2:]:
        train(Plain(), small_splits(), config, observe=records.append, state=state)
    assert [record["step"] for record in records] == [len(states)]


def test_restored_averages_lie_in_memory_as_their_weights_do() -> None:
    # Kernels add up numbers of another layout in another order.
    first, second = training(), training()
    first.update(batches(first, 1), 1e-3)
    skeleton, tensors = split_tree(first.state_dict())
    # As a file has them.
    second.load_state_dict(joined_tree(skeleton, {name: storable(tensor) for name, tensor in tensors.items()}))
    layouts = [[entry["exp_avg"].stride() for entry in run.optimizer.state.values()] for run in (first, second)]
    assert layouts[0] == layouts[1]
    assert any(not entry["exp_avg"].is_contiguous() for entry in first.optimizer.state.values())
