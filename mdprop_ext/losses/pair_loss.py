"""What losses of pairs and triplets have in common."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from mdprop_ext.losses._batch import PairBatch, pair_batch
from mdprop_ext.losses.indices import IndicesTuple


class PairLoss(nn.Module):
    """Base of the losses of pairs and triplets: how they are called, and in which precision they compute.

    The call is that of pytorch-metric-learning, so their miners, memories and wrappers work with these losses. A
    subclass defines ``_compute``.
    """

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: IndicesTuple | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        """Computes the loss of a batch in fp32, also under autocast, or in fp64 if embeddings are.

        Args:
            embeddings: Floating-point tensor ``[N, D]``, N at least 1.
            labels: Integer tensor ``[N]`` on the same device.
            indices_tuple: What a miner chose, three tensors of triplets or four of pairs; None leaves the choice to the
                loss.
            ref_emb: Floating-point tensor ``[M, D]`` to compare the embeddings with; None means one another.
            ref_labels: Integer tensor ``[M]``, given together with ``ref_emb``.

        Returns:
            The loss, a tensor without dimensions.

        Raises:
            TypeError: If embeddings are not floating-point or labels are.
            ValueError: If shapes are not as above.
        """
        batch = pair_batch(embeddings, labels, ref_emb, ref_labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            return self._compute(batch, indices_tuple)

    @abstractmethod
    def _compute(self, batch: PairBatch, indices_tuple: IndicesTuple | None) -> Tensor:
        """Computes the loss, a scalar."""
