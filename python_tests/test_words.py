from __future__ import annotations

import pytest

from mdprop_ext._words import counted, did_you_mean

NAMES = ("learning_rate", "schedule", "steps", "attack_steps", "mt_targets", "accumulate", "patience", "eps", "torch")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("lerning_rate", "learning_rate"),
        ("learning-rate", "learning_rate"),
        ("epz", "eps"),
        ("step", "steps"),
        ("attack_step", "attack_steps"),
        ("mt_target", "mt_targets"),
    ],
)
def test_typing_errors_are_recognised(name: str, meant: str) -> None:
    assert did_you_mean(name, NAMES) == f", did you mean {meant!r}?"


@pytest.mark.parametrize("name", ["seed", "seeds", "device", "out", "margin", "lr", "batch_size", "nosuch", "x"])
def test_other_words_are_not_guessed_at(name: str) -> None:
    assert did_you_mean(name, NAMES) == ""
    assert did_you_mean(name, []) == ""


def test_what_is_counted_agrees_with_the_number() -> None:
    assert [counted(number, "step") for number in (0, 1, 2)] == ["0 steps", "1 step", "2 steps"]
