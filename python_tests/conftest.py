"""Settings of every test run."""

import os

import pytest
import torch
from hypothesis import settings

settings.register_profile("mdprop", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("mdprop")


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random state and with the same small number of threads."""
    torch.manual_seed(0)
    torch.set_num_threads(min(2, os.cpu_count() or 1))
