"""The density of classes in embedding space."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mdprop_ext.metrics._arguments import check_embeddings, check_labels


def pi_ratio(embeddings: Tensor, labels: Tensor) -> float:
    r"""Computes the ratio of distances within classes to distances between classes, the embedding space density.

    .. math:: \pi_\text{ratio} = \pi_\text{intra} / \pi_\text{inter}

    where :math:`\pi_\text{intra}` is the mean over classes of the mean cosine distance of all pairs within the class,
    and :math:`\pi_\text{inter}` the mean cosine distance of all pairs of class means. The cosine distance is
    :math:`1 - \cos`; a zero vector has distance 1 from all. Classes of a single image have no pairs and count for
    :math:`\pi_\text{inter}` only.

    The m vectors of a class enter by their sum alone: the similarities of their pairs add up to
    :math:`(\lVert \sum v_i \rVert^2 - \sum \lVert v_i \rVert^2) / 2`. So the cost is linear in N.

    Args:
        embeddings: Floating-point tensor ``[N, D]``; normalised inside, in ``float64``.
        labels: Integer tensor ``[N]``.

    Returns:
        The ratio, at least 0; infinite or NaN if all class means have exactly one direction.

    Raises:
        TypeError: If ``embeddings`` are not floating-point or ``labels`` not integers.
        ValueError: If shapes disagree, a value is not finite, there are fewer than two classes, or no class has two
            images.

    Example:
        >>> pi_ratio(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1]))
        0.0

    Reference:
        K. Roth, T. Milbich, S. Sinha, P. Gupta, B. Ommer, J. P. Cohen: Revisiting Training Strategies and
        Generalization Performance in Deep Metric Learning. ICML 2020.
    """
    check_embeddings("embeddings", embeddings)
    check_labels("labels", labels, len(embeddings))
    names, class_of, sizes = torch.unique(labels, return_inverse=True, return_counts=True)
    if len(names) < 2 or int(sizes.max()) < 2:
        raise ValueError(f"labels: expected two classes, one with two images, got class sizes {sizes.tolist()[:10]}")
    vectors = F.normalize(embeddings.detach().double())
    sums = vectors.new_zeros(len(names), vectors.shape[1]).index_add_(0, class_of, vectors)
    square_norms = vectors.new_zeros(len(names)).index_add_(0, class_of, vectors.square().sum(1))
    paired = sizes > 1
    intra = _mean_pair_distances(sums, square_norms, sizes)[paired].mean()
    means = F.normalize(sums)
    inter = _mean_pair_distances(means.sum(0), means.square().sum(), torch.tensor(len(names)))
    return float(intra / inter)


def _mean_pair_distances(sums: Tensor, square_norms: Tensor, sizes: Tensor) -> Tensor:
    """Returns the mean cosine distance over the pairs of each group.

    Args:
        sums: Sum of each group's unit vectors, ``[..., D]``.
        square_norms: Sum of their squared norms, ``[...]``: the group's size if none is the zero vector.
        sizes: Number of vectors in each group, ``[...]``.
    """
    return (1 - (sums.square().sum(-1) - square_norms) / (sizes * (sizes - 1))).clamp(min=0)
