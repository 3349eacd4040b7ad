"""A private op with the smallest CUDA kernel, by which ``selftest`` shows that CUDA kernels of this build run."""

from __future__ import annotations

import torch
from torch import Tensor

from mdprop_ext.ops import _check
from mdprop_ext.ops._register import register_op


def _default(like: Tensor) -> Tensor:
    return torch.arange(like.numel(), dtype=like.dtype, device=like.device).reshape(like.shape)


def _fake(like: Tensor) -> Tensor:
    _check.floating("like", like)
    return torch.empty_like(like, memory_format=torch.contiguous_format)


register_op("_cuda_probe", "(Tensor like) -> Tensor", _default, _fake)
