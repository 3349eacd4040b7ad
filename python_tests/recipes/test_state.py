from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mdprop_ext.recipes._state import restore_state, split_tree, state_of


def test_tensors_are_restored_where_they_are() -> None:
    saved = state_of(SimpleNamespace(average=torch.tensor([1.0, 2.0]), calls=3))
    average = torch.zeros(2)
    owner = SimpleNamespace(average=average, calls=0)
    restore_state(owner, saved)
    assert owner.average is average
    assert average.tolist() == [1.0, 2.0]
    assert owner.calls == 3


def test_what_no_file_can_hold_is_named_with_its_place() -> None:
    with pytest.raises(TypeError, match=r"state: expected tensors and plain values, got set at '/optimizer/1'"):
        split_tree({"optimizer": [torch.ones(2), {3}]})
