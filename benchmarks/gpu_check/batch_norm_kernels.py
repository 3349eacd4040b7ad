"""Which kernels torch's batch norm launches, by dtype, layout, direction, eager and compiled: which peer is cuDNN."""

from __future__ import annotations

import sys

import torch
import torch._functorch.config
import torch.nn.functional as F

from benchmarks.gpu_check.launches import kernels_of
from benchmarks.gpu_check.plan import compiled, name_of
from benchmarks.gpu_check.process import append

SHAPE = (64, 64, 56, 56)
FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


def batch_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Training with the statistics of the batch."""
    return F.batch_norm(x, None, None, weight, bias, training=True)


def record(how: str, dtype: torch.dtype, layout: str) -> None:
    """Lists the kernels of one setting, forward and backward."""
    torch._dynamo.reset()
    function = batch_norm if how == "eager" else compiled(batch_norm)
    x = torch.randn(SHAPE, device="cuda").to(dtype).contiguous(memory_format=FORMATS[layout])
    inputs = (x, *(torch.rand(SHAPE[1], device="cuda") for _ in range(2)))
    for tensor in inputs:
        tensor.requires_grad_()
    y = function(*inputs)
    gradient = torch.randn_like(y)
    calls = {
        "forward": lambda: function(*inputs),
        "backward": lambda: torch.autograd.grad(y, inputs, gradient, retain_graph=True),
    }
    for direction, call in calls.items():
        names = kernels_of(call)
        setting = {"how": how, "dtype": name_of(dtype), "layout": layout, "direction": direction}
        append({**setting, "count": len(names), "kernels": names})


def main() -> int:
    torch._functorch.config.donated_buffer = False  # backward runs many times on one graph
    for how in ("eager", "compiled"):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            for layout in FORMATS:
                record(how, dtype, layout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
