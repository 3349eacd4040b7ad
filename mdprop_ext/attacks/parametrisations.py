"""Parametrisations: what an attack varies, and the model input that it makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

ChannelValues = float | Sequence[float] | Tensor
ModelInput = Callable[[Tensor], Tensor]  # point [N, *] -> model input [N, *]


class Parametrisation(Protocol):
    """Turns the point that the engine moves into what the model is fed, differentiably."""

    def bind(self, origin: Tensor) -> ModelInput:
        """Prepares for one batch ``origin [N, *]``: what does not change from step to step is done here."""
        ...


class Pixels:
    """Every pixel is a variable; the model sees ``(pixels - mean) / std``.

    Normalisation lies inside, so that radius, step and bounds are in pixel units whatever the model expects.

    Args:
        mean: One number or one a channel, in pixel units; None means 0.
        std: One positive number or one a channel, in pixel units; None means 1.

    Raises:
        ValueError: If ``std`` is not positive, or there are no values.

    Example:
        >>> images = torch.ones(1, 3, 2, 2)
        >>> float(Pixels(mean=0.5, std=0.5).bind(images)(images).max())
        1.0
    """

    def __init__(self, mean: ChannelValues | None = None, std: ChannelValues | None = None) -> None:
        self._mean = None if mean is None else _channel_values("mean", mean)
        self._std = None if std is None else _channel_values("std", std)
        if self._std is not None and not bool((self._std > 0).all()):
            raise ValueError(f"std: expected positive values, got {self._std.tolist()}")

    def bind(self, origin: Tensor) -> ModelInput:
        """Returns ``normalise(point [N, C, *]) -> model input [N, C, *]``, which keeps the dtype.

        Raises:
            ValueError: If ``mean`` or ``std`` has neither one value nor one a channel of ``origin``.
        """
        mean = None if self._mean is None else _along_channels("mean", self._mean, origin)
        std = None if self._std is None else _along_channels("std", self._std, origin)

        def normalise(point: Tensor) -> Tensor:
            centred = point if mean is None else point - mean
            return centred if std is None else centred / std

        return normalise


def _channel_values(name: str, values: ChannelValues) -> Tensor:
    # A copy made outside inference mode: autograd can save it for the backward pass.
    with torch.inference_mode(False):
        tensor = torch.as_tensor(values, dtype=torch.float64).detach().cpu().flatten().clone()
    if tensor.numel() == 0:
        raise ValueError(f"{name}: expected a number or one number a channel, got no values")
    return tensor


def _along_channels(name: str, values: Tensor, origin: Tensor) -> Tensor:
    if len(values) not in (1, origin.shape[1]):
        raise ValueError(f"{name}: expected 1 or {origin.shape[1]} values (channels of x), got {len(values)}")
    return values.to(origin).reshape(-1, *[1] * (origin.dim() - 2))
