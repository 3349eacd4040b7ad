"""Tensors whose elements have numbers past 2^31: what lies at their end must be found, and written, there."""

import platform

import pytest
import torch
from huge import huge, unmap_all

from mdprop_ext import ops

PAST = 2**31

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="repeated memory is mapped by Linux's mmap")


@pytest.fixture(autouse=True)
def _room(device):
    if device == "cuda" and torch.cuda.mem_get_info()[0] < 60 << 30:
        pytest.skip("needs 60 GiB of memory on the card")
    yield
    unmap_all()


@pytest.mark.parametrize("samples", [1, PAST // 4096 + 1])
def test_pgd_step(device, samples):
    shape = (samples, PAST + 64) if samples == 1 else (samples, 4096)
    size = torch.Size(shape).numel()
    tail = torch.linspace(0, 1, 64)
    x = huge(shape, torch.float32, device, 0.5, tail)
    grad = huge(shape, torch.float32, device, 1.0, tail - 0.5)
    origin = huge(shape, torch.float32, device, 0.5, torch.full((64,), 0.5))
    out = huge(shape, torch.float32, device, 0.0, torch.zeros(64))
    ops.pgd_step(x, grad, origin, norm="linf", step=0.25, radius=0.375, out=out)
    flat = out.view(-1)
    assert flat[size - 64 :].cpu().equal((tail + 0.25 * (tail - 0.5).sign()).clamp(0.125, 0.875))
    assert flat[:8].tolist() == flat[size - 72 : size - 64].tolist() == [0.75] * 8


def test_multi_batch_norm_statistics(device):
    shape = (2, 1, PAST // 2 + 32)
    x = huge(shape, torch.float32, device, 1.0, torch.full((64,), 3.0))
    moments = torch.ops.mdprop.multi_batch_norm_statistics(x, 2, torch.tensor([1, 0], device=device), None)
    count = PAST // 2 + 32
    mean = 1 + 2 * 64 / count
    deviations = 64 * (3 - mean) ** 2 + (count - 64) * (1 - mean) ** 2
    torch.testing.assert_close(moments.cpu()[1], torch.tensor([count, 1, 0], dtype=torch.float64))
    torch.testing.assert_close(moments.cpu()[0], torch.tensor([count, mean, deviations], dtype=torch.float64))


def test_knn_topk(device):
    rows, dim = PAST // 64 + 3, 64
    tail = torch.ones(3 * dim) * torch.tensor([2.0, 4.0, 3.0]).repeat_interleave(dim)
    points = huge((rows, dim), torch.float32, device, -1.0, tail)
    distances, indices = ops.knn_topk(torch.full((1, dim), 4.0, device=device), points, 3, metric="euclidean")
    assert indices.tolist() == [[rows - 2, rows - 1, rows - 3]]
    torch.testing.assert_close(distances.cpu(), torch.tensor([[0.0, 8.0, 16.0]]))


def test_hamming_topk(device):
    tail = torch.tensor([7, 1, 0])
    codes = huge((PAST + 3, 1), torch.int64, device, -1, tail)
    distances, indices = ops.hamming_topk(torch.zeros(1, 1, dtype=torch.int64, device=device), codes, 4, bits=64)
    assert indices.tolist() == [[PAST + 2, PAST + 1, PAST, 0]]
    assert distances.tolist() == [[0, 1, 3, 64]]


def test_pack_codes(device):
    rows, bits = PAST // 4096 + 1, 4096
    tail = torch.arange(bits) % 3 == 0
    codes = huge((rows, bits), torch.bool, device, 1, tail)
    packed = ops.pack_codes(codes)
    assert (packed[:-1] == -1).all()
    assert packed[-1].cpu().equal(ops.pack_codes(tail[None])[0])
