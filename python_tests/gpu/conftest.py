"""Tests of this folder need a CUDA device, and compare where arithmetic must not vary."""

import pytest
import torch
from torch import nn

from mdprop_ext import MultiBNFused


def pytest_itemcollected(item):
    item.add_marker("cuda")
    item.add_marker(pytest.mark.skipif(not torch.cuda.is_available(), reason="torch.cuda finds no device"))


@pytest.fixture(autouse=True)
def _exact_convolutions():
    """Convolutions in full float32, by the same algorithm on every run."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


@pytest.fixture
def network():
    """Two convolutions with multi-branch batch norm on 3 x 16 x 16 images, 5 classes; the same one at each call."""

    def build():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            MultiBNFused(8, branches=("main", "adv"), activation="relu"),
            nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
            MultiBNFused(16, branches=("main", "adv")),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * 8 * 8, 5),
        ).cuda()

    return build
