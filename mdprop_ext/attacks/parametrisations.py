"""Parametrisations: what an attack varies, and the model input that it makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from mdprop_ext.nn.normalized import (
    ChannelValues,
    along_channels,
    channel_values,
    check_same_channels,
    positive,
)

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
        ValueError: If ``std`` is not positive, there are no values, or ``mean`` and ``std`` are of different numbers of
            channels.

    Example:
        >>> images = torch.ones(1, 3, 2, 2)
        >>> float(Pixels(mean=0.5, std=0.5).bind(images)(images).max())
        1.0
    """

    def __init__(self, mean: ChannelValues | None = None, std: ChannelValues | None = None) -> None:
        self._mean = None if mean is None else channel_values("mean", mean)
        self._std = None if std is None else positive("std", channel_values("std", std))
        if self._mean is not None and self._std is not None:
            check_same_channels(self._mean, self._std)

    def __repr__(self) -> str:
        mean, std = (None if values is None else values.tolist() for values in (self._mean, self._std))
        return f"Pixels(mean={mean}, std={std})"

    def bind(self, origin: Tensor) -> ModelInput:
        """Returns ``normalise(point [N, C, *]) -> model input [N, C, *]``, which keeps the dtype.

        Raises:
            ValueError: If ``mean`` or ``std`` has neither one value nor one a channel of ``origin``.
        """
        mean = None if self._mean is None else along_channels("mean", self._mean, origin)
        std = None if self._std is None else along_channels("std", self._std, origin)

        def normalise(point: Tensor) -> Tensor:
            centred = point if mean is None else point - mean
            return centred if std is None else centred / std

        return normalise
