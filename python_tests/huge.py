"""Tensors of more than 2^31 elements that take little memory."""

from __future__ import annotations

import ctypes
import mmap
import os

import torch
from torch import Tensor

_CHUNK = 4 << 20  # bytes: one piece of memory, seen again and again
_FIXED, _NORESERVE = 0x10, 0x4000  # flags of mmap(2) that the module mmap does not name
_maps: list[tuple[int, int]] = []

_libc = ctypes.CDLL(None, use_errno=True)
if hasattr(_libc, "mmap"):
    _libc.mmap.restype = ctypes.c_void_p
    _libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_longlong]
    _libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def huge(shape: tuple[int, ...], dtype: torch.dtype, device: str, body: float, tail: Tensor) -> Tensor:
    """A tensor filled with ``body`` that ends with the values of ``tail``.

    On the CPU its pages but the last ones are the same memory, mapped again and again: what is written to one shows in
    all, so an op may only write there what it writes everywhere. They stay until :func:`unmap_all`, since tensors have
    no way to say that they end. On a card it takes real memory.
    """
    numel = torch.Size(shape).numel()
    if device != "cpu":
        tensor = torch.full((numel,), body, dtype=dtype, device=device)
    else:
        size = -(-numel * dtype.itemsize // _CHUNK) * _CHUNK
        tensor = torch.frombuffer((ctypes.c_char * size).from_address(_map_repeatedly(size)), dtype=dtype)
        chunk = _CHUNK // dtype.itemsize
        tensor[:chunk] = body
        tensor[-2 * chunk :] = body
        tensor = tensor[:numel]
    tensor[numel - tail.numel() :] = tail.to(device)
    return tensor.view(shape)


def unmap_all() -> None:
    """Gives the addresses back. No tensor of :func:`huge` may be used after it."""
    while _maps:
        _libc.munmap(*_maps.pop())


def _map_repeatedly(size: int) -> int:
    """The address of ``size`` bytes: one chunk mapped all over, but for the last two, which are their own."""
    start = _map(None, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE, -1)
    _maps.append((start, size))
    file = os.memfd_create("huge")
    os.ftruncate(file, _CHUNK)
    for offset in range(0, size - 2 * _CHUNK, _CHUNK):
        _map(start + offset, _CHUNK, mmap.MAP_SHARED | _FIXED, file)
    os.close(file)
    return start


def _map(address: int | None, size: int, flags: int, file: int) -> int:
    result = _libc.mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, file, 0)
    if result in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "mmap failed")
    return int(result)
