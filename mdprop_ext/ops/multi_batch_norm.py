"""Batch norm with several branches over one mixed batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mdprop_ext.ops import _branches, _check, _multi_batch_norm_parts, _written  # noqa: F401  (registers raw ops)
from mdprop_ext.ops._register import register_gradient, register_op
from mdprop_ext.reference import multi_batch_norm as reference

ACTIVATIONS = ("relu",)


def multi_batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    *,
    branch: Tensor | Sequence[int] | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Normalises each sample by the statistics and affine parameters of its own branch, in one pass over the batch.

    For a value of channel c of a sample of branch b::

        y = (x - mean[b, c]) / sqrt(var[b, c] + eps) * weight[b, c] + bias[b, c] + residual

    followed by the activation. In training ``mean`` and ``var`` are those of the branch's values in this batch (``var``
    biased, as in ``torch.nn.BatchNorm2d``), and the running statistics of the branches that are present move towards
    them in place (with the unbiased variance); in evaluation they are the running ones. With one branch this is
    ``torch.nn.functional.batch_norm``.

    Args:
        x: ``[N, C, *]``, float32, float64, bfloat16 or float16; contiguous or channels_last, which the result keeps.
        weight: ``[B, C]`` or None for ones; float32 (float64 for float64 x; half types are converted). One scale for
            all branches is ``weight.expand(B, C)``, which sums their gradients.
        bias: ``[B, C]`` or None for zeros.
        running_mean: ``[B, C]``, updated in place in training, or None.
        running_var: ``[B, C]`` of the dtype of ``running_mean``, updated in place in training, or None. Needed with
            ``running_mean`` in evaluation.
        branch: The branch of each sample: None for branch 0 throughout; int64 ids ``[N]`` in any order, each in
            ``[0, B)``; or the B sizes of a batch that is sorted by branch, as a sequence of ints or an int64 tensor. A
            tensor of length N is read as ids. On a card up to 64 sizes known to the host go with the kernel, without a
            copy, and a CUDA graph keeps those it was recorded with; ids on the host are copied at each call, for which
            it waits, so that a graph needs them on the card.
        training: Whether to use the statistics of the batch.
        momentum: Weight of the batch in the running statistics, in [0, 1]. None (a cumulative average) needs counters
            and belongs to ``mdprop_ext.nn.MultiBatchNorm2d``.
        eps: Added to the variance.
        activation: None or ``"relu"``, fused.
        residual: Like ``x``, added before the activation in the same pass; None for nothing.

    Returns:
        A tensor like ``x``.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If shapes do not fit, ids are out of range (checked for CPU tensors), a branch has a single value a
            channel in training (checked where its size is known without asking the device), or an option is unknown.

    Example:
        >>> x = torch.randn(6, 3, 8, 8)
        >>> weight, bias = torch.ones(2, 3), torch.zeros(2, 3)
        >>> multi_batch_norm(x, weight, bias, None, None, branch=[4, 2], training=True).shape
        torch.Size([6, 3, 8, 8])

    Reference:
        Ioffe and Szegedy, "Batch Normalization", ICML 2015; Xie et al., "Adversarial Examples Improve Image
        Recognition", CVPR 2020 (auxiliary batch norm).
    """
    ids, sizes = _branches.split(x, branch)
    _check_options(running_mean, running_var, training, momentum, eps, activation)
    _check_tensors(x, weight, bias, running_mean, running_var, residual, ids, sizes, training)
    y, mean, var, count, _ = torch.ops.mdprop.multi_batch_norm(
        x, weight, bias, running_mean, running_var, residual, ids, sizes, training, float(eps), activation
    )
    if training and running_mean is not None and running_var is not None and not _branches.recomputing():
        _update_statistics(running_mean, running_var, mean, var, count, momentum)
    return y  # type: ignore[no-any-return]


@torch.no_grad()
def _update_statistics(
    running_mean: Tensor, running_var: Tensor, mean: Tensor, var: Tensor, count: Tensor, momentum: float | None
) -> None:
    # The kernel updates dense rows of fp32 or fp64; other tables are updated in a copy.
    dense = [t.to(torch.promote_types(t.dtype, torch.float32)).contiguous() for t in (running_mean, running_var)]
    _written.mark(dense)
    torch.ops.mdprop.multi_batch_norm_update_(
        list(dense[0].unbind()), list(dense[1].unbind()), [], mean, var, count, momentum
    )
    for table, updated in zip((running_mean, running_var), dense, strict=True):
        if updated is not table:
            table.copy_(updated)


class MultiBatchNormFunction(torch.autograd.Function):
    """``torch.ops.mdprop.multi_batch_norm`` as an autograd function: ``(x, ...) -> (y, mean, var, count, mask)``."""

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        residual: Tensor | None,
        branch_ids: Tensor | None,
        branch_sizes: Tensor | None,
        training: bool,
        eps: float,
        activation: str | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Calls the op."""
        return torch.ops.mdprop.multi_batch_norm(  # type: ignore[no-any-return]
            x, weight, bias, running_mean, running_var, residual, branch_ids, branch_sizes, training, eps, activation
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Saves x, the affine parameters, the statistics used, the branches and, after a residual, what relu passed."""
        x, weight, bias, _, _, residual, ids, sizes, ctx.training, ctx.eps, ctx.activation = inputs
        _, mean, var, count, mask = output
        ctx.mark_non_differentiable(mean, var, count, mask)
        has_mask = residual is not None and ctx.activation is not None
        ctx.save_for_backward(x, weight, bias, mean, var, mask if has_mask else None, ids, sizes)
        # Beside the saved ones, which checkpointing replaces by those of the recomputation.
        ctx.branches = ids if sizes is None else sizes

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight, bias and residual."""
        x, weight, bias, mean, var, mask, ids, sizes = ctx.saved_tensors
        _branches.check_recomputed(ctx.branches, ids if sizes is None else sizes)
        needs_affine = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        grad_x, grad_residual, grad_weight, grad_bias = torch.ops.mdprop.multi_batch_norm_backward(
            grad,
            x,
            weight,
            bias,
            mean,
            var,
            mask,
            None,
            ids,
            sizes,
            ctx.training,
            ctx.eps,
            ctx.activation,
            needs_affine,
        )
        return (
            grad_x if ctx.needs_input_grad[0] else None,
            grad_weight.to(weight.dtype) if ctx.needs_input_grad[1] else None,
            grad_bias.to(bias.dtype) if ctx.needs_input_grad[2] else None,
            *(None, None),
            None if not ctx.needs_input_grad[5] else grad if mask is None else grad_residual,
            *[None] * 5,
        )


def _fake(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    residual: Tensor | None,
    branch_ids: Tensor | None,
    branch_sizes: Tensor | None,
    training: bool,
    eps: float,
    activation: str | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    tables = [t for t in (weight, bias, running_mean, branch_sizes) if t is not None]
    branches, channels, dtype = tables[0].shape[0] if tables else 1, x.shape[1], _check.compute_dtype(x)
    y = _check.empty_like_kernel(x)
    mask_bytes = 0
    if residual is not None and activation is not None:
        spatial = x.shape[2:].numel()
        rows = spatial == 1 or not y.is_contiguous()
        mask_bytes = x.shape[0] * (spatial * (-(-channels // 8)) if rows else channels * (-(-spatial // 8)))
    return (
        y,
        x.new_empty((branches, channels), dtype=dtype),
        x.new_empty((branches, channels), dtype=dtype),
        x.new_empty(branches, dtype=torch.int64),
        x.new_empty(mask_bytes, dtype=torch.uint8),
    )


register_op(
    "multi_batch_norm",
    "(Tensor x, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, Tensor? residual, "
    "Tensor? branch_ids, Tensor? branch_sizes, bool training, float eps, str? activation) "
    "-> (Tensor y, Tensor mean, Tensor var, Tensor count, Tensor mask)",
    reference.forward,
    _fake,
)
register_gradient("multi_batch_norm", MultiBatchNormFunction)


def _check_options(
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float | None,
    eps: float,
    activation: str | None,
) -> None:
    if activation is not None and activation not in ACTIVATIONS:
        raise ValueError(f"activation: expected None or one of {ACTIVATIONS}, got {activation!r}")
    if not training and (running_mean is None or running_var is None):
        raise ValueError("running_mean, running_var: needed unless training, got None")
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean, running_var: expected both or neither")
    if momentum is None and training and running_mean is not None:
        raise ValueError("momentum: expected a number in [0, 1]; None needs the counters of nn.MultiBatchNorm2d")
    _check.momentum_and_eps(momentum, eps)


def _check_tensors(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    residual: Tensor | None,
    ids: Tensor | None,
    sizes: Tensor | None,
    training: bool,
) -> None:
    tables = {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var}
    branches = _branches.count(tables, sizes)
    _branches.check_tables(x, branches, tables)
    if residual is not None:
        _check.like("residual", residual, "x", x)
    if ids is not None and weight is None and bias is None and running_mean is None:
        raise ValueError("branch: ids [N] need weight or running statistics [B, C], which say how many branches exist")
    _branches.check(x, branches, ids, sizes, training)
