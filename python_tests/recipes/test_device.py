from __future__ import annotations

import pytest
import torch

from mdprop_ext.recipes.device import resolve_device


def test_where_training_runs() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="device: expected one of auto, cpu, cuda, got 'tpu'"):
        resolve_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_a_card_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="device: expected auto or cpu, since torch finds no CUDA device, got 'cuda'"):
        resolve_device("cuda")
