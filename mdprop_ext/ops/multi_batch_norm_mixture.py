"""Batch norm by a mixture of branches, for evaluation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mdprop_ext.ops import _branches, _check
from mdprop_ext.ops._register import register_gradient, register_op
from mdprop_ext.reference import multi_batch_norm_mixture as reference


def multi_batch_norm_mixture(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    probs: Tensor,
    *,
    eps: float = 1e-5,
) -> Tensor:
    """Normalises each sample by a weighted sum of branches, with running statistics.

    For a value of channel c of sample n::

        y = sum_b probs[n, b] * ((x - running_mean[b, c]) / sqrt(running_var[b, c] + eps) * weight[b, c] + bias[b, c])

    which for each sample and channel is one affine map, so the cost does not grow with the number of branches. A row of
    ``probs`` that is 1 for one branch and 0 elsewhere gives the bits of :func:`multi_batch_norm` for that branch. A
    branch of probability 0 takes no part, even where its statistics are not finite.

    Args:
        x: ``[N, C, *]``, float32, float64, bfloat16 or float16; contiguous or channels_last, which the result keeps.
        weight: ``[B, C]`` or None for ones; float32 (float64 for float64 x; half types are converted).
        bias: ``[B, C]`` or None for zeros.
        running_mean: ``[B, C]``.
        running_var: ``[B, C]`` of the dtype of ``running_mean``.
        probs: ``[N, B]``, the weight of each branch in each sample; any numbers, usually >= 0 with sum 1.
        eps: Added to the variance.

    Returns:
        A tensor like ``x``. Gradients flow to ``x``, ``weight``, ``bias`` and ``probs``; a second derivative raises.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If shapes do not fit or ``eps`` is negative.

    Example:
        >>> x = torch.randn(4, 3, 8, 8)
        >>> tables = torch.ones(2, 3), torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 3)
        >>> multi_batch_norm_mixture(x, *tables, torch.full((4, 2), 0.5)).shape
        torch.Size([4, 3, 8, 8])
    """
    tables = {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var}
    _check.floating("x", x)
    for name in ("running_mean", "running_var"):
        _check.tensor(name, tables[name])
    _check.floating("probs", probs)
    if probs.dim() != 2 or probs.shape[0] != x.shape[0]:
        raise ValueError(f"probs: expected [N, B] with N = {x.shape[0]} of x, got {list(probs.shape)}")
    _check.same_device("probs", probs, "x", x)
    if probs.shape[1] == 0:
        raise ValueError("probs: expected [N, B] with at least one branch, got B = 0")
    _branches.check_tables(x, probs.shape[1], tables)
    _check.number("eps", eps)
    if not eps >= 0:
        raise ValueError(f"eps: expected a number >= 0, got {eps}")
    return torch.ops.mdprop.multi_batch_norm_mixture(  # type: ignore[no-any-return]
        x, weight, bias, running_mean, running_var, probs, float(eps)
    )


class MultiBatchNormMixtureFunction(torch.autograd.Function):
    """``torch.ops.mdprop.multi_batch_norm_mixture`` as an autograd function."""

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor,
        running_var: Tensor,
        probs: Tensor,
        eps: float,
    ) -> Tensor:
        """Calls the op."""
        return torch.ops.mdprop.multi_batch_norm_mixture(  # type: ignore[no-any-return]
            x, weight, bias, running_mean, running_var, probs, eps
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Saves all inputs."""
        ctx.save_for_backward(*inputs[:6])
        ctx.eps = inputs[6]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight, bias and probs."""
        needed = [ctx.needs_input_grad[i] for i in (0, 1, 2, 5)]
        results = torch.ops.mdprop.multi_batch_norm_mixture_backward(grad, *ctx.saved_tensors, ctx.eps, any(needed[1:]))
        inputs = [ctx.saved_tensors[i] for i in (0, 1, 2, 5)]
        grad_x, grad_weight, grad_bias, grad_probs = (
            result.to(given.dtype) if wanted else None
            for result, given, wanted in zip(results, inputs, needed, strict=True)
        )
        return grad_x, grad_weight, grad_bias, None, None, grad_probs, None


class MultiBatchNormMixtureBackwardFunction(torch.autograd.Function):
    """The derivative of ``torch.ops.mdprop.multi_batch_norm_mixture_backward``: refused."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Saves nothing."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Raises."""
        raise NotImplementedError("mdprop_ext.ops.multi_batch_norm_mixture cannot be differentiated twice")


def _default(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    probs: Tensor,
    eps: float,
) -> Tensor:
    return reference.multi_batch_norm_mixture(x, weight, bias, running_mean, running_var, probs, eps=eps)


def _fake(x: Tensor, *args: Any) -> Tensor:
    return _check.empty_like_kernel(x)


def _fake_backward(grad: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mean, probs, table_gradients = rest[2], rest[4], rest[-1]
    dtype = _check.compute_dtype(x)
    shapes = [mean.shape, mean.shape, probs.shape] if table_gradients else [(0,)] * 3
    grad_weight, grad_bias, grad_probs = (x.new_empty(shape, dtype=dtype) for shape in shapes)
    return _check.empty_like_kernel(x), grad_weight, grad_bias, grad_probs


register_op(
    "multi_batch_norm_mixture",
    "(Tensor x, Tensor? weight, Tensor? bias, Tensor running_mean, Tensor running_var, Tensor probs, float eps) "
    "-> Tensor",
    _default,
    _fake,
)
register_op(
    "multi_batch_norm_mixture_backward",
    "(Tensor grad, Tensor x, Tensor? weight, Tensor? bias, Tensor running_mean, Tensor running_var, Tensor probs, "
    "float eps, bool table_gradients) -> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias, Tensor grad_probs)",
    reference.backward,
    _fake_backward,
)
register_gradient("multi_batch_norm_mixture", MultiBatchNormMixtureFunction)
register_gradient("multi_batch_norm_mixture_backward", MultiBatchNormMixtureBackwardFunction)
