"""A memory of the embeddings of earlier batches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mdprop_ext._arguments import check_integer
from mdprop_ext.losses._batch import check_batch, full_precision
from mdprop_ext.losses._wrapped import check_callable, check_takes_pairs, loss_of_pairs
from mdprop_ext.losses.indices import IndicesTuple, all_pairs


class CrossBatchMemory(nn.Module):
    """Compares each batch with a queue of the latest embeddings, which is cheaper than larger batches.

    A call puts the batch into the queue, in place of the oldest entries, and computes
    ``loss(embeddings, labels, indices_tuple, memory, memory_labels)``. Entries have no gradient; those of the batch are
    compared with its other images, but never with themselves.

    The queue is a buffer in fp32 (fp64 after ``.double()``), so checkpoints hold it. In evaluation mode, and during the
    first ``warm_up`` calls, while embeddings still change fast, the loss is that of the batch alone and nothing is
    stored.

    Where several processes train, ``GatheredLoss(CrossBatchMemory(...))`` keeps the same queue on all; alone, every
    process has a queue of its own batches.

    Args:
        loss: A loss of pairs or triplets, of this package or of pytorch-metric-learning.
        size: Embeddings in the queue, at least 1 and no fewer than those of a batch.
        embedding_dim: Numbers in an embedding, at least 1.
        miner: ``miner(embeddings, labels, memory, memory_labels) -> indices_tuple``, of either package; None means all
            pairs, also for losses that mine by themselves otherwise.
        warm_up: Training calls before the queue is used, at least 0.

    Attributes:
        embedding_memory: Buffer ``[size, embedding_dim]``.
        label_memory: Buffer int64 ``[size]``.
        stored: Buffer, int64 without dimensions: how many embeddings were ever stored.
        calls: Buffer, int64 without dimensions: training calls so far.

    Raises:
        TypeError: If a number is not an int, ``loss`` one of proxies of this package, or loss or miner a class.
        ValueError: If a number is too small.

    Example:
        >>> loss = CrossBatchMemory(ContrastiveLoss(), 1024, 16)
        >>> loss(torch.randn(8, 16), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]))

    Reference:
        X. Wang, H. Zhang, W. Huang, M. Scott: Cross-Batch Memory for Embedding Learning. CVPR 2020, arXiv:1912.06798.
    """

    embedding_memory: Tensor
    label_memory: Tensor
    stored: Tensor
    calls: Tensor

    def __init__(
        self,
        loss: nn.Module,
        size: int,
        embedding_dim: int,
        *,
        miner: Callable[..., IndicesTuple] | None = None,
        warm_up: int = 0,
    ) -> None:
        super().__init__()
        check_takes_pairs(loss)
        if miner is not None:
            check_callable("miner", miner)
        check_integer("size", size, least=1)
        check_integer("embedding_dim", embedding_dim, least=1)
        check_integer("warm_up", warm_up, least=0)
        self.loss = loss
        self.miner = miner
        self.warm_up = warm_up
        self.register_buffer("embedding_memory", torch.zeros(size, embedding_dim))
        self.register_buffer("label_memory", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("stored", torch.tensor(0))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Stores a batch and computes its loss against the queue.

        Args:
            embeddings: Floating-point tensor ``[N, embedding_dim]``, N from 1 to the size of the queue.
            labels: Integer tensor ``[N]`` on the same device, that of the module.

        Returns:
            The loss, a tensor without dimensions.

        Raises:
            TypeError: If embeddings are not floating-point or labels are.
            ValueError: If shapes are not as above, or the loss is one of pytorch-metric-learning that takes no pairs or
                no references.
        """
        check_batch(embeddings, labels)
        size, width = self.embedding_memory.shape
        if len(embeddings) > size or embeddings.shape[1] != width:
            raise ValueError(f"embeddings: expected shape [N, {width}], N <= {size}, got {list(embeddings.shape)}")
        with torch.autocast(embeddings.device.type, enabled=False):
            # The losses of pytorch-metric-learning want the same dtype on both sides.
            dtype = full_precision(torch.promote_types(embeddings.dtype, self.embedding_memory.dtype))
            vectors = embeddings.to(dtype)
            if not self.training:
                return self._loss_of_batch(vectors, labels)
            self.calls += 1
            if self.warm_up and int(self.calls) <= self.warm_up:
                return self._loss_of_batch(vectors, labels)
            places = self._store(vectors.detach(), labels)
            filled = min(int(self.stored), size)
            return self._loss_of_queue(vectors, labels, places, filled)

    def reset(self) -> None:
        """Empties the queue."""
        for buffer in (self.embedding_memory, self.label_memory, self.stored, self.calls):
            buffer.zero_()

    def extra_repr(self) -> str:
        """Returns the options for ``print(module)``."""
        size, width = self.embedding_memory.shape
        text = f"size={size}, embedding_dim={width}, warm_up={self.warm_up}, stored={int(self.stored)}"
        # A miner that is a module is shown anyway.
        return text if self.miner is None or isinstance(self.miner, nn.Module) else f"{text}, miner={self.miner!r}"

    @torch.no_grad()
    def _store(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Overwrites the oldest entries and returns the places ``[N]`` of the new ones."""
        places = (self.stored + torch.arange(len(labels), device=labels.device)) % len(self.label_memory)
        self.embedding_memory[places] = embeddings.to(self.embedding_memory.dtype)
        self.label_memory[places] = labels.long()
        self.stored += len(labels)
        return places

    def _loss_of_batch(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Computes the loss of a batch alone, with the same miner."""
        indices = None if self.miner is None else self.miner(embeddings.detach(), labels)
        return loss_of_pairs(self, self.loss, embeddings, labels, indices)

    def _loss_of_queue(self, embeddings: Tensor, labels: Tensor, places: Tensor, filled: int) -> Tensor:
        """Computes the loss of a batch against the queue, in which it lies at ``places``."""
        # Copies, since the next call overwrites the queue, maybe before this one's backward pass.
        memory = self.embedding_memory[:filled].to(embeddings.dtype, copy=True)
        memory_labels = self.label_memory[:filled].clone()
        if self.miner is None:
            indices = all_pairs(labels, memory_labels)
        else:
            indices = self.miner(embeddings.detach(), labels, memory, memory_labels)
        anchors, positives = indices[:2]
        others = places[anchors] != positives
        # In triplets the negatives go with the positives.
        partners = indices[2:] if len(indices) == 4 else (indices[2][others],)
        pairs = (anchors[others], positives[others], *partners)
        return loss_of_pairs(self, self.loss, embeddings, labels, pairs, memory, memory_labels)
