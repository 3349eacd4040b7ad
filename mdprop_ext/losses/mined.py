"""A loss of the pairs or triplets that a miner chooses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mdprop_ext.losses._batch import check_batch, in_full_precision
from mdprop_ext.losses._wrapped import check_callable, check_takes_pairs, loss_of_pairs
from mdprop_ext.losses.indices import IndicesTuple


class MinedLoss(nn.Module):
    """Joins a loss and a miner to one criterion of embeddings and labels.

    Both may be of this package or of pytorch-metric-learning, in any combination. They are called in fp32, also under
    autocast, or in fp64 if embeddings are; so the parameters of a loss keep their precision.

    Args:
        loss: ``loss(embeddings, labels, indices_tuple) -> scalar``.
        miner: ``miner(embeddings, labels) -> indices_tuple``, see :data:`~mdprop_ext.losses.IndicesTuple`.

    Raises:
        TypeError: If ``loss`` is one of proxies of this package, which has no pairs to choose from, or loss or miner is
            a class.

    Example:
        >>> loss = MinedLoss(TripletMarginLoss(), BatchHardMiner())
        >>> loss(torch.randn(8, 16), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]))
    """

    def __init__(self, loss: nn.Module, miner: Callable[[Tensor, Tensor], IndicesTuple]) -> None:
        super().__init__()
        check_takes_pairs(loss)
        check_callable("miner", miner)
        self.loss = loss
        self.miner = miner

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Computes the loss of a batch.

        Args:
            embeddings: Floating-point tensor ``[N, D]``, N at least 1.
            labels: Integer tensor ``[N]`` on the same device.

        Returns:
            The loss, a tensor without dimensions.

        Raises:
            TypeError: If embeddings are not floating-point or labels are.
            ValueError: If shapes are not as above, or the loss is one of pytorch-metric-learning that takes no pairs.
        """
        check_batch(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            vectors = in_full_precision(embeddings)
            return loss_of_pairs(self, self.loss, vectors, labels, self.miner(vectors.detach(), labels))

    def extra_repr(self) -> str:
        """Returns the miner for ``print(module)``, unless it is a module and shown anyway."""
        return "" if isinstance(self.miner, nn.Module) else f"(miner): {self.miner!r}"
