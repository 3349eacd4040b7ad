"""What losses with one learnt vector a class have in common."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdprop_ext._arguments import check_integer
from mdprop_ext.losses._batch import check_batch, in_full_precision


class ClassLoss(nn.Module):
    """Base of the losses that compare embeddings with one learnt vector a class, its proxy.

    The proxies are a parameter: give it to the optimizer, ``Adam([*model.parameters(), *loss.parameters()])``. It keeps
    its precision whatever the embeddings have. A subclass defines ``_compute``.

    Args:
        classes: Number of classes, at least 2.
        embedding_dim: Numbers in an embedding, at least 1.

    Raises:
        TypeError: If a number is not an int.
        ValueError: If a number is too small.
    """

    def __init__(self, classes: int, embedding_dim: int) -> None:
        super().__init__()
        check_integer("classes", classes, least=2)
        check_integer("embedding_dim", embedding_dim, least=1)
        self.proxies = nn.Parameter(torch.empty(classes, embedding_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the proxies ``[K, D]`` from a normal distribution, about one unit long, by the global random state."""
        nn.init.normal_(self.proxies, std=self.proxies.shape[1] ** -0.5)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Computes the loss of a batch in fp32, also under autocast, or in fp64 if embeddings are.

        Args:
            embeddings: Floating-point tensor ``[N, D]``, N at least 1.
            labels: Integer tensor ``[N]`` on the same device, from 0 to ``classes - 1``.

        Returns:
            The loss, a tensor without dimensions.

        Raises:
            TypeError: If embeddings are not floating-point or labels are.
            ValueError: If shapes are not as above, or labels, where they are on the CPU, out of range.
        """
        check_batch(embeddings, labels)
        classes, width = self.proxies.shape
        if embeddings.shape[1] != width:
            raise ValueError(f"embeddings: expected shape [N, {width}], got {list(embeddings.shape)}")
        if labels.device.type == "cpu" and not bool(((labels >= 0) & (labels < classes)).all()):
            raise ValueError(
                f"labels: expected values from 0 to {classes - 1}, got {int(labels.min())} to {int(labels.max())}"
            )
        with torch.autocast(embeddings.device.type, enabled=False):
            vectors = in_full_precision(embeddings)
            cosines = F.normalize(vectors) @ F.normalize(self.proxies.to(vectors.dtype)).T
            return self._compute(cosines, labels.long())

    def extra_repr(self) -> str:
        """Returns the options for ``print(module)``."""
        classes, width = self.proxies.shape
        return f"classes={classes}, embedding_dim={width}"

    @abstractmethod
    def _compute(self, cosines: Tensor, labels: Tensor) -> Tensor:
        """Computes the loss, a scalar, from cosine similarities ``[N, K]`` of embeddings and proxies."""
