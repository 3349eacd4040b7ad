from __future__ import annotations

import pytest
import torch

from mdprop_ext.recipes import TrainConfig


@pytest.mark.parametrize(
    ("available", "shape"), [(100, (32, 2)), (32, (32, 2)), (16, (16, 4)), (3, (3, 21)), (2, (2, 32))]
)
def test_a_batch_keeps_its_size_with_few_classes(available: int, shape: tuple[int, int]) -> None:
    assert TrainConfig().batch_shape(available) == shape


def test_learning_rate_schedules() -> None:
    assert [TrainConfig(learning_rate=0.1).learning_rate_at(step, 4) for step in (1, 4)] == [0.1, 0.1]
    linear = TrainConfig(learning_rate=0.1, schedule="linear")
    assert [linear.learning_rate_at(step, 4) for step in (1, 2, 3, 4)] == pytest.approx([0.1, 0.075, 0.05, 0.025])


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "clip_norm"])
def test_numbers_are_no_texts(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name}: expected a number, got str"):
        TrainConfig(**{name: "0.1"})


@pytest.mark.parametrize(("name", "size"), [("conv4", 16), ("resnet18", 16), ("resnet18", 96), ("resnet50", 96)])
def test_models_embed(name: str, size: int) -> None:
    model = TrainConfig(model=name, embedding_dim=8).build_model(3, size).eval()
    with torch.no_grad():
        embeddings = model(torch.rand(2, 3, size, size))
    assert embeddings.shape == (2, 8)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))
