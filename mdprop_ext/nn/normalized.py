"""A model that normalises its input itself, so that callers deal in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mdprop_ext._arguments import check_module

ChannelValues = float | Sequence[float] | Tensor


class Normalized(nn.Module):
    """Feeds ``(x - mean) / std`` to a model: attacks on it have radius, step and bounds in pixel units.

    ``PGD(Normalized(model, mean, std))`` finds what ``PGD(model, mean=mean, std=std)`` finds. Mean and deviation follow
    the module to other devices and dtypes and are not part of its ``state_dict``; weights are under ``model.``.

    Args:
        model: Takes normalised images ``[N, C, *]``.
        mean: One number or one a channel, in pixel units.
        std: One positive number or one a channel, in pixel units.

    Raises:
        TypeError: If ``model`` is not a module, or ``mean`` or ``std`` no numbers.
        ValueError: If ``std`` is not positive, there are no values, one is not finite, or ``mean`` and ``std`` are of
            different numbers of channels.

    Example:
        >>> float(Normalized(nn.Identity(), mean=0.5, std=0.25)(torch.ones(1, 3, 2, 2)).max())
        2.0
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: ChannelValues, std: ChannelValues) -> None:
        super().__init__()
        check_module("model", model)
        self.model = model
        means, deviations = channel_values("mean", mean), positive("std", channel_values("std", std))
        check_same_channels(means, deviations)
        self.register_buffer("mean", means.float(), persistent=False)
        self.register_buffer("std", deviations.float(), persistent=False)

    def forward(self, x: Tensor) -> Any:
        """The model's output for images ``[N, C, *]`` in pixel units.

        Raises:
            TypeError: If the images are not floating point.
            ValueError: If there is neither one value nor one a channel.
        """
        if not x.is_floating_point():
            raise TypeError(f"x: expected floating-point images, in which mean and std are not rounded, got {x.dtype}")
        return self.model((x - along_channels("mean", self.mean, x)) / along_channels("std", self.std, x))

    def extra_repr(self) -> str:
        """Mean and deviation."""
        return f"mean={_rounded(self.mean)}, std={_rounded(self.std)}"


def channel_values(name: str, values: ChannelValues) -> Tensor:
    """One number or one a channel as float64 ``[1]`` or ``[C]`` on the CPU.

    Raises:
        TypeError: If the values are no numbers.
        ValueError: If there are no values, or one is not finite.
    """
    # A copy made outside inference mode: autograd can save it for the backward pass.
    with torch.inference_mode(False):
        try:
            tensor = torch.as_tensor(values, dtype=torch.float64).detach().cpu().flatten().clone()
        except (TypeError, ValueError, RuntimeError):
            got = type(values).__name__
            raise TypeError(f"{name}: expected a number or one number a channel, got {got}") from None
    if tensor.numel() == 0:
        raise ValueError(f"{name}: expected a number or one number a channel, got no values")
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"{name}: expected finite values, got {tensor.tolist()}")
    return tensor


def positive(name: str, values: Tensor) -> Tensor:
    """Returns ``values``, all of which must be positive.

    Raises:
        ValueError: If one is not.
    """
    if not bool((values > 0).all()):
        raise ValueError(f"{name}: expected positive values, got {values.tolist()}")
    return values


def check_same_channels(mean: Tensor, std: Tensor) -> None:
    """Raises unless ``mean [C]`` and ``std [C]`` are of one number of channels, or one of them of all.

    Raises:
        ValueError: If they are not.
    """
    if len(std) != len(mean) and 1 not in (len(mean), len(std)):
        raise ValueError(f"std: expected 1 or {len(mean)} values, as many as mean has, got {len(std)}")


def along_channels(name: str, values: Tensor, x: Tensor) -> Tensor:
    """Shapes values of channels to broadcast over ``x [N, C, *]``, in its dtype and on its device.

    Raises:
        ValueError: If there is neither one value nor one a channel.
    """
    if len(values) not in (1, x.shape[1]):
        raise ValueError(f"{name}: expected 1 or {x.shape[1]} values (channels of x), got {len(values)}")
    return values.to(x).reshape(-1, *[1] * (x.dim() - 2))


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]
