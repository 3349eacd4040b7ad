from __future__ import annotations

import pytest

from mdprop_ext.recipes import MDPropConfig, TrainConfig, apply_settings
from mdprop_ext.recipes.settings import read_value


def test_settings_reach_the_configuration_that_has_the_field() -> None:
    recipe, training = apply_settings(
        [MDPropConfig(), TrainConfig()],
        ["eps=8/255", "mt_targets=3", "loss=separate", "steps = 7", "steps=9", "epochs=2", "weight_decay=1e-4"],
    )
    assert recipe == MDPropConfig(eps=8 / 255, mt_targets=3, loss="separate")
    assert training == TrainConfig(steps=9, epochs=2, weight_decay=1e-4)


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ("eps", "set: expected key=value, got 'eps'"),
        ("eps=", "set: expected key=value"),
        ("=3", "set: expected key=value"),
        ("epss=0.1", "unknown key 'epss', did you mean 'eps'"),
        ("lerning_rate=0.1", "did you mean 'learning_rate'"),
        ("lr=0.1", "set: unknown key 'lr', did you mean 'learning_rate'\\?$"),
        ("batch_size=64", "unknown key 'batch_size', did you mean 'classes_per_batch' and 'images_per_class'\\?$"),
        ("epsilon=0.1", "unknown key 'epsilon', did you mean 'eps'\\?$"),
        ("margin=1", "unknown key 'margin': expected one of accumulate, amp, .*, validate_every, weight_decay$"),
        ("eps=big", "eps: expected a number, got 'big'"),
        ("eps=1/0", "eps: expected a number, got '1/0'"),
        ("eps=8/", "eps: expected a number, got '8/'"),
        ("eps=8", "eps: expected a number from 0 to 1, got 8.0"),
        ("steps=3.5", "steps: expected an integer, got '3.5'"),
        ("steps=0", "steps: expected at least 1, got 0"),
        ("epochs=-1", "epochs: expected at least 1, got -1"),
        ("learning_rate=0", "learning_rate: expected a number above 0"),
        ("learning_rate=inf", "learning_rate: expected a finite number >= 0"),
        ("model=vgg", "model: expected one of conv4, resnet18, resnet50 or module:factory, got 'vgg'"),
        ("criterion=arcfase", "criterion: expected one of multi_similarity, .*, got 'arcfase', did you mean 'arcface'"),
        ("amp=fp16", "amp: expected one of none, bf16, got 'fp16'"),
        ("patience=0", "patience: expected at least 1, got 0"),
        ("accumulate=0", "accumulate: expected at least 1, got 0"),
        ("clip_norm=0", "clip_norm: expected a number above 0, got 0"),
        ("checkpoint_every=0", "checkpoint_every: expected at least 1, got 0"),
        ("images_per_class=1", "images_per_class: expected at least 2, got 1"),
    ],
)
def test_wrong_settings(setting: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        apply_settings([MDPropConfig(), TrainConfig()], [setting])


def test_customary_names_stand_only_for_keys_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"unknown key 'lr': expected one of attack_steps, eps, loss, mt_targets$"):
        apply_settings([MDPropConfig()], ["lr=1"])
    with pytest.raises(ValueError, match="unknown key 'epsilon': expected one of accumulate, "):
        apply_settings([TrainConfig()], ["epsilon=1"])


def test_values_by_type() -> None:
    assert read_value("flag", "True", bool) is True
    assert read_value("flag", False, bool) is False
    assert read_value("count", "none", int | None) is None
    assert read_value("count", "4", int | None) == 4
    assert read_value("text", "a=b", str) == "a=b"
    with pytest.raises(ValueError, match="flag: expected true or false"):
        read_value("flag", "1", bool)
