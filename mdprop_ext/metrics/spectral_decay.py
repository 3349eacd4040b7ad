"""How evenly embeddings use the directions of their space."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mdprop_ext._arguments import check_integer
from mdprop_ext.metrics._arguments import check_embeddings


def spectral_decay(embeddings: Tensor, mode: int = 1) -> float:
    r"""Computes the spectral decay rho: how far the singular values are from being equal.

    Let s be the singular values of the embedding matrix in falling order, without the first ``|mode| - 1``, divided
    by their sum, and U the uniform distribution over as many values. Then

    .. math:: \rho = \mathrm{KL}(U \,\Vert\, s) \text{ for mode} > 0,\quad
              \rho = \mathrm{KL}(s \,\Vert\, U) \text{ for mode} < 0.

    It is 0 for a flat spectrum, where all directions carry the same weight. A lower value goes with better
    generalisation to unseen classes. Values that are not above the rounding of the input's dtype, relative to the
    largest, are raised to it: a direction that is not used gives a large value, but not infinity or noise.

    Args:
        embeddings: Floating-point tensor ``[N, D]``; computed on in ``float64``.
        mode: Number of the first singular value to count, from 1; its negative for the reversed divergence.

    Returns:
        The divergence in nats, at least 0.

    Raises:
        TypeError: If ``embeddings`` are not floating-point, or ``mode`` not an int.
        ValueError: If the shape is not ``[N, D]``, a value is not finite, all are 0, or ``|mode|`` is not between 1
            and the number of singular values.

    Example:
        >>> spectral_decay(torch.eye(4))
        0.0

    Reference:
        K. Roth, T. Milbich, S. Sinha, P. Gupta, B. Ommer, J. P. Cohen: Revisiting Training Strategies and
        Generalization Performance in Deep Metric Learning. ICML 2020.
    """
    check_embeddings("embeddings", embeddings)
    check_integer("mode", mode, least=-min(embeddings.shape))
    if not 1 <= abs(mode) <= min(embeddings.shape):
        raise ValueError(f"mode: expected an absolute value from 1 to {min(embeddings.shape)}, got {mode}")
    values = torch.linalg.svdvals(embeddings.detach().double())
    if values[0] == 0:
        raise ValueError("embeddings: expected a value other than 0, got none")
    values = values.clamp(min=float(values[0]) * torch.finfo(embeddings.dtype).eps)[abs(mode) - 1 :]
    shares = values / values.sum()
    excess = shares.log() + math.log(len(values))
    return max(0.0, float(-excess.mean() if mode > 0 else (shares * excess).sum()))
