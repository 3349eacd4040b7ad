"""How well two partitions of the same items agree: normalised and adjusted mutual information."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mdprop_ext._arguments import check_tensor
from mdprop_ext.metrics._arguments import check_device, check_labels


def nmi(labels: Tensor, clusters: Tensor) -> float:
    r"""Computes the normalised mutual information of two partitions.

    .. math:: \mathrm{NMI} = \frac{I(L; C)}{(H(L) + H(C)) / 2}

    It is 1 for partitions that are the same up to names, two of a single part among them, and 0 for independent ones.
    The value is that of scikit-learn's ``normalized_mutual_info_score``.

    Args:
        labels: Integer tensor ``[N]``, N of at least 1.
        clusters: Integer tensor ``[N]`` on the same device.

    Returns:
        The share, from 0 to 1.

    Raises:
        TypeError: If an argument does not hold integers.
        ValueError: If shapes or devices disagree, or shapes are empty.

    Example:
        >>> nmi(torch.tensor([0, 0, 1, 1]), torch.tensor([5, 5, 3, 3]))
        1.0

    Reference:
        C. D. Manning, P. Raghavan, H. Schuetze: Introduction to Information Retrieval, 2008, section 16.3.
    """
    table = _contingency(labels, clusters)
    if len(table.label_sizes) == len(table.cluster_sizes) == 1:
        return 1.0
    information = _mutual_information(table)
    return min(1.0, information / table.mean_entropy()) if information > 0 else 0.0


def ami(labels: Tensor, clusters: Tensor) -> float:
    r"""Computes the adjusted mutual information of two partitions.

    .. math:: \mathrm{AMI} = \frac{I(L; C) - \mathrm{E}[I]}{(H(L) + H(C)) / 2 - \mathrm{E}[I]}

    where E[I] is the mean over all partitions with parts of the same sizes. Unlike :func:`nmi`, it does not grow with
    the number of parts: chance scores 0. The value is that of scikit-learn's ``adjusted_mutual_info_score``; parts of
    equal size are counted together, so the cost grows with the number of different sizes.

    Args:
        labels: Integer tensor ``[N]``, N of at least 1.
        clusters: Integer tensor ``[N]`` on the same device.

    Returns:
        The share, at most 1; below 0 for partitions that agree less than by chance.

    Raises:
        TypeError: If an argument does not hold integers.
        ValueError: If shapes or devices disagree, or shapes are empty.

    Example:
        >>> ami(torch.tensor([0, 0, 0, 0]), torch.tensor([0, 1, 2, 3]))
        0.0

    Reference:
        N. X. Vinh, J. Epps, J. Bailey: Information Theoretic Measures for Clusterings Comparison. JMLR 2010.
    """
    table = _contingency(labels, clusters)
    if len(table.label_sizes) == 1 or len(table.cluster_sizes) == 1:
        return float(len(table.label_sizes) == len(table.cluster_sizes))
    by_chance = _expected_information(table)
    more = _away_from_zero(_mutual_information(table) - by_chance)
    return min(1.0, more / _away_from_zero(table.mean_entropy() - by_chance))


class _Contingency(NamedTuple):
    """How many items each pair of parts shares; float64 on the CPU, only pairs that share some."""

    shared: Tensor  # [P]
    label_of: Tensor  # [P]
    cluster_of: Tensor  # [P]
    label_sizes: Tensor  # [L]
    cluster_sizes: Tensor  # [C]

    def mean_entropy(self) -> float:
        """The mean of both partitions' entropies, in nats."""
        return (_entropy(self.label_sizes) + _entropy(self.cluster_sizes)) / 2


def _contingency(labels: Tensor, clusters: Tensor) -> _Contingency:
    check_tensor("labels", labels)
    check_labels("labels", labels, labels.numel())
    check_labels("clusters", clusters, len(labels))
    check_device("clusters", clusters, "labels", labels)
    if len(labels) == 0:
        raise ValueError("labels: expected at least one, got none")
    _, label_of, label_sizes = torch.unique(labels, return_inverse=True, return_counts=True)
    _, cluster_of, cluster_sizes = torch.unique(clusters, return_inverse=True, return_counts=True)
    pairs, shared = torch.unique(label_of * len(cluster_sizes) + cluster_of, return_counts=True)
    pairs = pairs.cpu()
    return _Contingency(
        shared.cpu().double(),
        pairs // len(cluster_sizes),
        pairs % len(cluster_sizes),
        label_sizes.cpu().double(),
        cluster_sizes.cpu().double(),
    )


def _entropy(sizes: Tensor) -> float:
    shares = sizes / sizes.sum()
    return max(0.0, -float((shares * shares.log()).sum()))


def _mutual_information(table: _Contingency) -> float:
    total = table.shared.sum()
    by_chance = table.label_sizes[table.label_of] * table.cluster_sizes[table.cluster_of]
    terms = table.shared / total * ((table.shared.log() - total.log()) + (2 * total.log() - by_chance.log()))
    # Rounding must not make information of independent partitions.
    return max(0.0, float(terms.where(terms.abs() > torch.finfo(terms.dtype).eps, 0.0).sum()))


def _expected_information(table: _Contingency) -> float:
    """Expects the mutual information of random partitions: each pair of parts shares a hypergeometric number."""
    total = table.shared.sum()
    sizes, repeats = torch.unique(table.cluster_sizes, return_counts=True)
    expected = 0.0
    for label_size, label_repeats in zip(*torch.unique(table.label_sizes, return_counts=True), strict=True):
        shared = torch.arange(1, int(torch.minimum(label_size, sizes.max())) + 1, dtype=torch.float64)[:, None]
        possible = (shared <= sizes) & (label_size + sizes - shared <= total)
        shared = shared.expand_as(possible)[possible]
        column = possible.nonzero()[:, 1]
        size = sizes[column]
        chance = _log_factorials(label_size, size, total - label_size, total - size) - _log_factorials(
            total, shared, label_size - shared, size - shared, total - label_size - size + shared
        )
        information = shared / total * (total.log() + shared.log() - label_size.log() - size.log())
        expected += float((information * chance.exp() * repeats[column]).sum() * label_repeats)
    return expected


def _log_factorials(*numbers: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for number in numbers:
        total = total + torch.lgamma(number + 1)
    return total


def _away_from_zero(value: float) -> float:
    """The value, moved to the least one of its sign that counts: equal partitions must give 1 and not 0 / 0."""
    return math.copysign(max(abs(value), torch.finfo(torch.float64).eps), value)
