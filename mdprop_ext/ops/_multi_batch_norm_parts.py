"""The raw ops beside ``multi_batch_norm``: its gradient, running statistics, and its two halves.

Training splits where one collective over several processes fits, forward and backward::

    moments = statistics(x)                              # [B, 2C + 1], to be gathered to [R, B, 2C + 1]
    mean, var, count = merge(moments)
    y, *_, mask = multi_batch_norm(x, running_mean=mean, running_var=var, training=False)

    sums, grad_weight, grad_bias = backward_sums(grad)   # [B, 2C + 1], to be added up
    grad_x, grad_residual, *_ = backward(grad, sums=sums)

``moments`` holds the count of each branch, then the mean of each channel and its sum of squared deviations; ``sums``
the count, then ``sum(g)`` and ``sum(g * (x - mean))``; both in float64. Without a collective the halves give the bits
of the whole.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mdprop_ext.ops import _check
from mdprop_ext.ops._register import register_gradient, register_op
from mdprop_ext.reference import multi_batch_norm as reference
from mdprop_ext.reference import multi_batch_norm_backward as reference_backward


class MultiBatchNormBackwardFunction(torch.autograd.Function):
    """The derivative of ``torch.ops.mdprop.multi_batch_norm_backward``, for second derivatives."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Saves all inputs."""
        ctx.save_for_backward(*inputs[:10])
        ctx.options = inputs[10:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Differentiates the plain formula of the gradient."""
        grad, x, weight, bias, mean, var, mask, sums, ids, sizes = ctx.saved_tensors
        training, eps, activation, affine_gradients = ctx.options
        if sums is not None:
            raise NotImplementedError("multi_batch_norm cannot be differentiated twice with sums of other processes")
        if ids is None:
            samples = x.shape[0]
            counts = sizes if sizes is not None else torch.full((1,), samples, device=x.device)
            # Without the size of the result the host would wait for the sum of the counts.
            ids = torch.arange(len(counts), device=x.device).repeat_interleave(counts.to(x.device), output_size=samples)
        ids = ids.to(x.device)
        with torch.enable_grad():
            outputs = reference_backward.differentiable_backward(
                grad, x, weight, bias, mean, var, mask, ids, training, eps, activation
            )
            chosen = [0, *([] if mask is None else [1]), *([2, 3] if affine_gradients else [])]
            wanted = [i for i in range(3) if ctx.needs_input_grad[i]]
            results = torch.autograd.grad(
                [outputs[i] for i in chosen],
                [(grad, x, weight)[i] for i in wanted],
                [grads[i] for i in chosen],
                create_graph=torch.is_grad_enabled(),
                allow_unused=True,
            )
        gradients: list[Tensor | None] = [None] * 14
        for i, result in zip(wanted, results, strict=True):
            gradients[i] = result
        return tuple(gradients)


def _fake_backward(grad: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mean, mask, affine_gradients = rest[2], rest[4], rest[-1]
    shape = mean.shape if affine_gradients else (0,)
    grad_x = _check.empty_like_kernel(x)
    grad_residual = x.new_empty(0) if mask is None else torch.empty_like(grad_x)
    return grad_x, grad_residual, mean.new_empty(shape), mean.new_empty(shape)


def _fake_update(*args: Any) -> None:
    return None


def _table(x: Tensor, branches: int) -> Tensor:
    return x.new_empty((branches, 2 * x.shape[1] + 1), dtype=torch.float64)


def _fake_statistics(x: Tensor, branches: int, ids: Tensor | None, sizes: Tensor | None) -> Tensor:
    return _table(x, branches)


def _fake_merge(moments: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    _, branches, columns = moments.shape
    mean, var = (moments.new_empty((branches, columns // 2), dtype=dtype) for _ in range(2))
    return mean, var, moments.new_empty(branches, dtype=torch.int64)


def _fake_backward_sums(grad: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    mean = rest[2]
    return _table(x, mean.shape[0]), torch.empty_like(mean), torch.empty_like(mean)


register_op(
    "multi_batch_norm_backward",
    "(Tensor grad, Tensor x, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, Tensor? mask, Tensor? sums, "
    "Tensor? branch_ids, Tensor? branch_sizes, bool training, float eps, str? activation, bool affine_gradients) "
    "-> (Tensor grad_x, Tensor grad_residual, Tensor grad_weight, Tensor grad_bias)",
    reference_backward.backward,
    _fake_backward,
)
register_op(
    "multi_batch_norm_update_",
    "(Tensor(a!)[] running_means, Tensor(b!)[] running_vars, Tensor(c!)[] num_batches, Tensor mean, Tensor var, "
    "Tensor count, float? momentum) -> ()",
    reference.update,
    _fake_update,
)
register_op(
    "multi_batch_norm_statistics",
    "(Tensor x, int branches, Tensor? branch_ids, Tensor? branch_sizes) -> Tensor",
    reference.statistics,
    _fake_statistics,
)
register_op(
    "multi_batch_norm_merge",
    "(Tensor moments, ScalarType dtype) -> (Tensor mean, Tensor var, Tensor count)",
    reference.merge,
    _fake_merge,
)
register_op(
    "multi_batch_norm_backward_sums",
    "(Tensor grad, Tensor x, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, Tensor? mask, Tensor? branch_ids, "
    "Tensor? branch_sizes, float eps, str? activation) -> (Tensor sums, Tensor grad_weight, Tensor grad_bias)",
    reference_backward.backward_sums,
    _fake_backward_sums,
)
register_gradient("multi_batch_norm_backward", MultiBatchNormBackwardFunction)
