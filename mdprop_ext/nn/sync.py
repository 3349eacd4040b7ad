"""Batch norm over the batches of several processes: one all-gather forward, one all-reduce backward, for all branches.

Every process of the group takes part in each exchange, whatever its batch: it may be empty, and routed in any way.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import distributed as dist

from mdprop_ext._arguments import check_bool
from mdprop_ext.ops import _branches


def check_synchronization(sync: object, process_group: object) -> None:
    """Raises unless ``sync`` is True or False, and ``process_group`` None or, with ``sync`` only, a group.

    What ``torch.distributed.new_group`` gives to a process outside of the group counts as one.
    """
    check_bool("sync", sync)
    if process_group is None:
        return
    is_group = dist.is_available() and (
        isinstance(process_group, dist.ProcessGroup) or process_group is dist.GroupMember.NON_GROUP_MEMBER
    )
    if not is_group:
        raise TypeError(
            f"process_group: expected a torch.distributed.ProcessGroup or None, got {type(process_group).__name__}"
        )
    if not sync:
        raise ValueError("process_group: expected None with sync=False, got a group")


def synchronizing_group(process_group: dist.ProcessGroup | None) -> dist.ProcessGroup | None:
    """The group to exchange statistics with: the one given or that of all processes; None where nobody else is in it.

    Args:
        process_group: A group of ``torch.distributed``, or None for all processes.
    """
    if not dist.is_available() or not dist.is_initialized():
        return None
    group = dist.group.WORLD if process_group is None else process_group
    # A process outside of the group is told a size of -1.
    return group if dist.get_world_size(group) > 1 else None


def synchronized_batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    ids: Tensor | None,
    branches: tuple[str, ...],
    *,
    eps: float,
    activation: str | None,
    group: dist.ProcessGroup,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalises each sample by the statistics that its branch has over all processes.

    Args:
        x: ``[N, C, *]``, where N, and it alone, may differ between processes and be 0.
        weight: ``[B, C]``, or ``[1, C]`` without ids.
        bias: Like ``weight``, or None.
        residual: Like ``x``, or None.
        ids: Branch of each sample, int64 ``[N]``; None for branch 0.
        branches: Names of all B branches.
        eps: Added to the variance.
        activation: None or ``"relu"``.
        group: Two processes or more.

    Returns:
        A tensor like ``x``; mean and biased variance ``[B, C]`` and the number of values ``[B]`` over all processes.

    Raises:
        ValueError: If a branch has one value per channel in all processes together; then each of them raises.
    """
    with torch.no_grad():
        moments = torch.ops.mdprop.multi_batch_norm_statistics(x, len(branches), ids, None)
        gathered = moments.new_empty((dist.get_world_size(group), *moments.shape))
        dist.all_gather(list(gathered.unbind()), moments, group=group)
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        mean, variance, counts = torch.ops.mdprop.multi_batch_norm_merge(gathered, dtype)
    # After the exchange, so that no process is left waiting in it. Reading a GPU's counts would make the host wait.
    if counts.device.type == "cpu" and not torch.compiler.is_compiling() and 1 in counts.tolist():
        raise ValueError(
            f"Expected more than 1 value per channel when training, got one over all processes in branch "
            f"{branches[counts.tolist().index(1)]!r}"
        )
    output, _ = SynchronizedFunction.apply(  # type: ignore[no-untyped-call]
        x, weight, bias, mean, variance, residual, ids, eps, activation, group
    )
    return output, mean, variance, counts


class SynchronizedFunction(torch.autograd.Function):
    """Normalises by statistics of all processes; the gradient of ``x`` passes through these statistics.

    Gradients of ``weight`` and ``bias`` are those of this process alone, as in ``nn.SyncBatchNorm``: averaging over
    processes is what ``DistributedDataParallel`` does for every parameter.
    """

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        residual: Tensor | None,
        ids: Tensor | None,
        eps: float,
        activation: str | None,
        group: dist.ProcessGroup,
    ) -> tuple[Tensor, Tensor]:
        """Gives the normalised values, and bits of what ReLU passed of a sum with a residual."""
        rows = len(weight)
        output, _, _, _, mask = torch.ops.mdprop.multi_batch_norm(
            x, weight, bias, mean[:rows], variance[:rows], residual, ids, None, False, eps, activation
        )
        return output, mask

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Saves the inputs but the residual, and the bits."""
        x, weight, bias, mean, variance, residual, ids, *ctx.options = inputs
        mask = output[1]
        ctx.mark_non_differentiable(mask)
        has_mask = residual is not None and ctx.options[1] is not None
        ctx.save_for_backward(x, weight, bias, mean, variance, mask if has_mask else None, ids)
        # Beside the saved ones, which checkpointing replaces by those of the recomputation.
        ctx.ids = ids

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight, bias and residual."""
        x, weight, bias, mean, variance, mask, ids = ctx.saved_tensors
        _branches.check_recomputed(ctx.ids, ids)
        grad_x, grad_residual, grad_weight, grad_bias = SynchronizedBackwardFunction.apply(  # type: ignore[no-untyped-call]
            grad, x, weight, bias, mean, variance, mask, ids, *ctx.options
        )
        return (
            grad_x if ctx.needs_input_grad[0] else None,
            grad_weight.to(weight.dtype) if ctx.needs_input_grad[1] else None,
            grad_bias.to(bias.dtype) if ctx.needs_input_grad[2] else None,
            *(None, None),
            None if not ctx.needs_input_grad[5] else grad if mask is None else grad_residual,
            *[None] * 4,
        )


class SynchronizedBackwardFunction(torch.autograd.Function):
    """The gradient of :class:`SynchronizedFunction`, which refuses to be differentiated."""

    @staticmethod
    def forward(
        grad: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        mask: Tensor | None,
        ids: Tensor | None,
        eps: float,
        activation: str | None,
        group: dist.ProcessGroup,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Adds up the sums of all processes; gives the gradients of x, residual, weight and bias."""
        (branches, _), rows = mean.shape, len(weight)
        tables = (weight, bias, mean[:rows], variance[:rows], mask)
        sums, grad_weight, grad_bias = torch.ops.mdprop.multi_batch_norm_backward_sums(
            grad, x, *tables, ids, None, eps, activation
        )
        # Without ids there is one row here, but maybe more in another process.
        total = F.pad(sums, (0, 0, 0, branches - rows))
        dist.all_reduce(total, group=group)
        grad_x, grad_residual, _, _ = torch.ops.mdprop.multi_batch_norm_backward(
            grad, x, *tables, total[:rows], ids, None, True, eps, activation, False
        )
        return grad_x, grad_residual, grad_weight, grad_bias

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Saves nothing."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Raises."""
        raise NotImplementedError("a multi-branch batch norm with sync=True cannot be differentiated twice")
