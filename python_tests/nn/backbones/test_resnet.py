"""Residual networks: torchvision's names, stems and heads."""

import pytest
import torch
from torch import nn

from mdprop_ext.nn.backbones import resnet18, resnet50

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def torchvision_names(depths, convolutions, shortcut_in_first_stage):
    names = {"conv1.weight", "fc.weight", "fc.bias"} | {f"bn1.{name}" for name in NORM}
    for stage, depth in enumerate(depths, start=1):
        for block in range(depth):
            prefix = f"layer{stage}.{block}"
            for index in range(1, convolutions + 1):
                names |= {f"{prefix}.conv{index}.weight"} | {f"{prefix}.bn{index}.{name}" for name in NORM}
            if block == 0 and (stage > 1 or shortcut_in_first_stage):
                names |= {f"{prefix}.downsample.0.weight"} | {f"{prefix}.downsample.1.{name}" for name in NORM}
    return names


def test_names_are_those_of_torchvision():
    with torch.device("meta"):
        small, large = resnet18(), resnet50()
    assert set(small.state_dict()) == torchvision_names((2, 2, 2, 2), 2, False)
    assert set(large.state_dict()) == torchvision_names((3, 4, 6, 3), 3, True)


@pytest.mark.parametrize(("make", "parameters"), [(resnet18, 11_689_512), (resnet50, 25_557_032)])
def test_the_imagenet_classifier_has_the_known_size(make, parameters):
    with torch.device("meta"):
        model = make(stem="imagenet", embedding_dim=None, num_classes=1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("make", "stem", "in_channels", "size"),
    [(resnet18, "cifar", 1, 9), (resnet18, "imagenet", 3, 40), (resnet50, "cifar", 3, 9)],
)
def test_unit_embeddings(make, stem, in_channels, size):
    embeddings = make(in_channels=in_channels, embedding_dim=6, stem=stem)(torch.rand(2, in_channels, size, size))
    assert embeddings.shape == (2, 6)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))


def test_stems_differ_in_resolution():
    sizes = []
    with torch.device("meta"):
        for stem in ("cifar", "imagenet"):
            model = resnet18(stem=stem)
            model.layer4.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[-1]))
            model(torch.rand(1, 3, 64, 64))
    assert sizes == [8, 2]


def test_heads():
    with torch.device("meta"):
        x = torch.rand(2, 3, 8, 8)
        features, classifier = resnet18(embedding_dim=None), resnet18(embedding_dim=None, num_classes=7)
        assert features(x).shape == (2, 512)
        assert classifier(x).shape == (2, 7)
    assert isinstance(features.fc, nn.Identity)
    assert (features.normalize, classifier.normalize) == (True, False)
    with pytest.raises(ValueError, match="embedding_dim=None"):
        resnet18(num_classes=7)
    with pytest.raises(ValueError, match="stem must be"):
        resnet18(stem="tiny")
