"""Settings of every test run."""

import os

import pytest
import torch

from mdprop_ext.info import collect

try:
    from hypothesis import settings
except ModuleNotFoundError:  # the tests on a card do without
    pass
else:
    settings.register_profile("mdprop", deadline=None, max_examples=25, derandomize=True)
    settings.load_profile("mdprop")

CUDA = pytest.param("cuda", marks=pytest.mark.cuda)


@pytest.fixture(params=["cpu", CUDA] if torch.cuda.is_available() else ["cpu"])
def device(request):
    """The devices that a test is about: the CPU, and a CUDA device where there is one."""
    return request.param


@pytest.fixture(autouse=True, scope="session")
def _poisoned():
    """Where CUDA kernels are emulated, results start as NaN and the largest integers until they are written."""
    if (collect()["extension"] or {}).get("emulated"):
        torch.use_deterministic_algorithms(True, warn_only=True)


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random state and with the same small number of threads."""
    torch.manual_seed(0)
    torch.set_num_threads(min(2, os.cpu_count() or 1))
