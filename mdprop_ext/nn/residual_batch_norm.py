"""Plain batch norms that add a residual and activate: what multi-branch layers with a residual leave behind."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _ResidualBatchNorm(_BatchNorm):
    """What the 1d, 2d and 3d layers share; see :class:`ResidualBatchNorm2d`."""

    activation: str | None = None

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalises, adds and activates.

        Args:
            input: ``[N, C]`` or ``[N, C, *]``.
            residual: Like ``input``, or None for nothing.

        Returns:
            A tensor like ``input``.
        """
        output: Tensor = super().forward(input)
        if residual is not None:
            # In the type of the input, as the multi-branch layer, also where autocast has left the residual wide.
            output = output + residual.to(output.dtype)
        return output if self.activation is None else torch.relu(output)

    def extra_repr(self) -> str:
        """The text of the plain layer, and the activation."""
        text: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return text if self.activation is None else f"{text}, activation={self.activation!r}"


class ResidualBatchNorm1d(_ResidualBatchNorm, nn.BatchNorm1d):
    """``activation(nn.BatchNorm1d(input) + residual)``; see :class:`ResidualBatchNorm2d`."""


class ResidualBatchNorm2d(_ResidualBatchNorm, nn.BatchNorm2d):
    """``activation(nn.BatchNorm2d(input) + residual)`` in plain PyTorch.

    Made by ``strip_branches(model, residual=True)`` for models whose forward passes call ``layer(input, residual)``.
    """


class ResidualBatchNorm3d(_ResidualBatchNorm, nn.BatchNorm3d):
    """``activation(nn.BatchNorm3d(input) + residual)``; see :class:`ResidualBatchNorm2d`."""


RESIDUAL_CLASSES: Mapping[type[_BatchNorm], type[_ResidualBatchNorm]] = {
    nn.BatchNorm1d: ResidualBatchNorm1d,
    nn.BatchNorm2d: ResidualBatchNorm2d,
    nn.BatchNorm3d: ResidualBatchNorm3d,
}
