"""A loss of the joined batches of all processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

from mdprop_ext._distributed import rank_and_world_size
from mdprop_ext.losses._batch import check_batch, in_full_precision
from mdprop_ext.losses._wrapped import check_callable


class GatheredLoss(nn.Module):
    """Computes a loss of the batches of all processes, so that pairs across processes count too.

    Every process gets all embeddings and labels, process by process in the order of ranks, and computes the same loss;
    a :class:`~mdprop_ext.losses.CrossBatchMemory` in it holds the same on all. Batches may differ in size.

    The gradient of a process's embeddings is the sum of those that all processes' losses give. With the mean over
    processes that ``DistributedDataParallel`` takes, the gradient of the network is the one of a single process with
    the joined batch. Parameters of the loss get that gradient in each process already. A network that is not wrapped
    needs the same mean.

    Without ``torch.distributed``, or with one process, this is the loss itself.

    Args:
        loss: ``loss(embeddings, labels) -> scalar``, of this package or of pytorch-metric-learning. It is called in
            fp32, also under autocast, or in fp64 if embeddings are.

    Raises:
        TypeError: If ``loss`` is a class.

    Example:
        >>> loss = GatheredLoss(MultiSimilarityLoss())
        >>> loss(torch.randn(8, 16), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]))
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        check_callable("loss", loss)
        self.loss = loss

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Computes the loss of the joined batch; to be called by all processes.

        Args:
            embeddings: Floating-point tensor ``[N, D]``, N at least 1 and D the same in all processes.
            labels: Integer tensor ``[N]`` on the same device.

        Returns:
            The loss, a tensor without dimensions.

        Raises:
            TypeError: If embeddings are not floating-point or labels are.
            ValueError: If shapes are not as above.
        """
        check_batch(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            vectors = in_full_precision(embeddings)
            if rank_and_world_size()[1] > 1:
                sizes = _gather_sizes(vectors)
                vectors = _GatherRows.apply(vectors, sizes)  # type: ignore[no-untyped-call]
                labels = _gather_rows(labels.long(), sizes)
            loss: Tensor = self.loss(vectors, labels)
            return loss


class _GatherRows(torch.autograd.Function):
    """Joins the rows of all processes; the gradient of own rows is summed over processes."""

    @staticmethod
    def forward(rows: Tensor, sizes: list[int]) -> Tensor:
        return _gather_rows(rows, sizes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, list[int]], output: Tensor) -> None:
        ctx.sizes = inputs[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return torch.split(total, ctx.sizes)[distributed.get_rank()], None


def _gather_sizes(rows: Tensor) -> list[int]:
    """Returns the number of rows of each process, in the order of ranks."""
    own = torch.tensor([len(rows)], device=rows.device)
    sizes = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(sizes, own)
    return [int(size) for size in torch.cat(sizes).tolist()]


def _gather_rows(rows: Tensor, sizes: list[int]) -> Tensor:
    """Joins the rows of all processes, in the order of ranks."""
    # Backends gather equal shapes only.
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
