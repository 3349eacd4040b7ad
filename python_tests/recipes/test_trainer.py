from __future__ import annotations

import pytest
import torch
from recipe_cases import small_splits

from mdprop_ext.data import Splits
from mdprop_ext.metrics import retrieval_metrics
from mdprop_ext.recipes import MDProp, Plain, TrainConfig, TrainOutcome, embed, train
from mdprop_ext.recipes.base import Recipe
from mdprop_ext.recipes.trainer import Record


def run(recipe: Recipe, splits: Splits | None = None, **options: object) -> tuple[TrainOutcome, list[Record]]:
    config = TrainConfig(classes_per_batch=4, **{"steps": 4, "validate_every": 2, **options})
    history: list[Record] = []
    return train(recipe, splits or small_splits(), config, observe=history.append), history


def test_a_seed_decides_everything_and_the_global_state_is_left_alone() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, first_history = run(MDProp(seed=1))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    second, second_history = run(MDProp(seed=1))
    other, _ = run(MDProp(seed=2))
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
    assert [record["loss"] for record in first_history] == [record["loss"] for record in second_history]
    assert not torch.equal(first.model.fc.weight, other.model.fc.weight)


def test_the_best_model_on_validation_is_kept_and_test_is_not_looked_at() -> None:
    splits = small_splits()
    # A learning rate that is far too high makes validation go up and down.
    outcome, history = run(Plain(), splits._replace(test=None), steps=8, validate_every=1, learning_rate=0.3)
    scores = {record["step"]: (record["val_recall_at_1"], record["val_map_at_r"]) for record in history}
    best = max(scores, key=lambda step: (scores[step], -step))
    assert outcome.step == best
    assert best != 8, "the case does not tell the best model from the last one"
    measured = retrieval_metrics(embed(outcome.model, splits.val), splits.val.labels, ks=(1,))
    assert (measured["recall_at_1"], measured["map_at_r"]) == scores[best]
    assert history[-1]["best_val_recall_at_1"] == max(recall for recall, _ in scores.values())


def test_validation_comes_when_asked_and_at_the_end() -> None:
    _, history = run(Plain(), steps=5, validate_every=2)
    assert [record["step"] for record in history if "val_recall_at_1" in record] == [2, 4, 5]
    assert all(record["steps"] == 5 and record["seconds"] > 0 for record in history)


def test_epochs_are_passes_of_the_sampler() -> None:
    # 36 images in batches of 4 classes x 2 images.
    _, history = run(Plain(), epochs=2)
    assert [record["step"] for record in history] == list(range(1, 9))


def test_training_learns() -> None:
    _, history = run(Plain(), steps=25)
    losses = [record["loss"] for record in history]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_a_linear_schedule_reaches_the_optimizer() -> None:
    constant, _ = run(Plain(), steps=2)
    linear, _ = run(Plain(), steps=2, schedule="linear")
    assert not torch.equal(constant.model.fc.weight, linear.model.fc.weight)


def test_interrupted_training_gives_the_current_model() -> None:
    def interrupt(record: Record) -> None:
        if record["step"] == 3:
            raise KeyboardInterrupt

    outcome = train(Plain(), small_splits(), TrainConfig(classes_per_batch=4), observe=interrupt)
    assert outcome.interrupted
    assert outcome.step == 3


def test_a_loss_that_is_not_finite_ends_training() -> None:
    with pytest.raises(ValueError, match="the loss is nan at step"):
        run(Plain(), learning_rate=1e30)
