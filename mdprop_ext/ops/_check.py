"""The argument checks that several ops share, and the shapes and dtypes that their kernels give."""

from __future__ import annotations

import numbers

import torch
from torch import Tensor

from mdprop_ext._arguments import check_tensor

PLAIN = (Tensor, torch.nn.Parameter)
tensor = check_tensor  # beside the other checks of an op's arguments
FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def floating(name: str, value: object) -> None:
    """Raises TypeError unless ``value`` is a tensor of a dtype that the kernels know."""
    if isinstance(value, Tensor) and value.dtype in FLOATING:
        return
    tensor(name, value)
    assert isinstance(value, Tensor)
    raise TypeError(f"{name}: expected float32, float64, bfloat16 or float16, got {value.dtype}")


def number(name: str, value: object) -> None:
    """Raises TypeError unless ``value`` is a real number, which a bool is not."""
    # Asking an abstract class takes longer than all other checks of a number.
    if type(value) is float or type(value) is int:
        return
    # A trace has number types of its own.
    if isinstance(value, bool) or not (isinstance(value, numbers.Real) or torch.compiler.is_compiling()):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")


def momentum_and_eps(momentum: float | None, eps: float) -> None:
    """Raises unless the numbers suit batch norm: ``momentum`` None or in [0, 1], ``eps`` >= 0."""
    if momentum is not None:
        number("momentum", momentum)
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum: expected a number in [0, 1], got {momentum}")
    number("eps", eps)
    if not eps >= 0:
        raise ValueError(f"eps: expected a number >= 0, got {eps}")


def size(name: str, value: object) -> None:
    """Raises unless ``value`` is an int in [1, 2^31 - 1)."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if not 1 <= value < 2**31 - 1:
        raise ValueError(f"{name}: expected at least 1 and less than 2^31 - 1, got {value}")


def readable(value: Tensor) -> bool:
    """Whether the values can be looked at without asking a device: not those of a trace, which has types of its own."""
    return type(value) in PLAIN and value.device.type == "cpu" and not torch.compiler.is_compiling()


def like(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Raises unless ``value`` is a tensor with the shape, dtype and device of ``other``."""
    tensor(name, value)
    if value.shape != other.shape:
        raise ValueError(f"{name}: expected the shape of {other_name}, {list(other.shape)}, got {list(value.shape)}")
    if value.dtype != other.dtype:
        raise TypeError(f"{name}: expected the dtype of {other_name}, {other.dtype}, got {value.dtype}")
    same_device(name, value, other_name, other)


def same_device(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Raises ValueError unless ``value`` is on the device of ``other``."""
    if value.device != other.device:
        raise ValueError(f"{name}: expected the device of {other_name}, {other.device}, got {value.device}")


def compute_dtype(x: Tensor) -> torch.dtype:
    """float64 for float64, else float32: what kernels compute in."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def kernel_memory_format(x: Tensor) -> torch.memory_format:
    """The dense format in which kernels read ``x``: channels_last where x is and is not contiguous too."""
    if not x.is_contiguous():
        for dim, memory_format in ((4, torch.channels_last), (5, torch.channels_last_3d)):
            if x.dim() == dim and x.is_contiguous(memory_format=memory_format):
                return memory_format
    return torch.contiguous_format


def empty_like_kernel(x: Tensor) -> Tensor:
    """What a kernel returns for ``x`` when traced: channels_last where x is, else contiguous."""
    return torch.empty_like(x, memory_format=kernel_memory_format(x))
