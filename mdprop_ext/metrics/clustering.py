"""How well clusters of the embeddings agree with the classes."""

from __future__ import annotations

import torch
from torch import Tensor

from mdprop_ext.metrics._arguments import check_embeddings, check_labels
from mdprop_ext.metrics.k_means import k_means
from mdprop_ext.metrics.mutual_information import ami, nmi


def clustering_metrics(embeddings: Tensor, labels: Tensor, *, seed: int = 0) -> dict[str, float]:
    """Clusters the embeddings by k-means, one cluster for each class, and compares clusters with classes.

    The measures vary with the first centres, hence with ``seed``, by some hundredths: compare means over seeds. They
    take far longer than those of retrieval where there are thousands of classes.

    Args:
        embeddings: Floating-point tensor ``[N, D]``, clustered by Euclidean distance as given.
        labels: Integer tensor ``[N]``.
        seed: Of the first centres, see :func:`k_means`.

    Returns:
        ``nmi`` and ``ami``, see :func:`nmi` and :func:`ami`.

    Raises:
        TypeError: If ``embeddings`` are not floating-point or ``labels`` not integers.
        ValueError: If shapes disagree or a value is not finite.

    Example:
        >>> clustering_metrics(torch.tensor([[0.0], [0.1], [9.0], [9.1]]), torch.tensor([3, 3, 7, 7]))
        {'nmi': 1.0, 'ami': 1.0}
    """
    check_embeddings("embeddings", embeddings)
    check_labels("labels", labels, len(embeddings))
    clusters, _ = k_means(embeddings, len(torch.unique(labels)), seed=seed)
    return {"nmi": nmi(labels, clusters), "ami": ami(labels, clusters)}
