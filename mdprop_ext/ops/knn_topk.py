"""Exact nearest neighbours of dense vectors, with gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mdprop_ext.ops import _check, _groups
from mdprop_ext.ops._register import register_gradient, register_op
from mdprop_ext.reference import knn_topk as reference

METRICS = ("sqeuclidean", "euclidean", "cosine", "dot")


def knn_topk(
    queries: Tensor, points: Tensor, k: int, *, metric: str, groups: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Finds the k nearest points of each query without a matrix of all distances.

    A smaller distance is nearer::

        sqeuclidean  sum_d (q_d - x_d)^2
        euclidean    its square root
        cosine       1 - <q, x> / (|q| |x|) in [0, 2], and 1 where a vector is zero
        dot          -<q, x>

    The result is exact: as if each distance were computed from the given values in float64 by the formula above,
    rounded once, and the pairs (distance, index) sorted. So the lower index wins a tie, NaN comes after infinity, -0 is
    +0, and the result does not depend on threads or instruction sets. The distances carry gradients to both inputs,
    which are 0 for a euclidean distance of 0 and for the cosine distance of a zero vector; a second derivative raises.
    Under autocast, float16 and bfloat16 inputs are cast to float32.

    With ``groups``, many searches run in one call: the queries of group g, rows ``query_offsets[g]`` up to
    ``query_offsets[g + 1]``, see only the points of group g, rows ``point_offsets[g]`` up to ``point_offsets[g + 1]``.
    Groups may differ in size and may be empty.

    Args:
        queries: ``[Q, D]``, float32, float64, bfloat16 or float16.
        points: ``[N, D]`` of the same dtype and device.
        k: How many neighbours, >= 1; it may exceed N.
        metric: ``"sqeuclidean"``, ``"euclidean"``, ``"cosine"`` or ``"dot"``.
        groups: ``(query_offsets, point_offsets)``, int64 ``[G + 1]`` each, which increase from 0 to Q and from 0 to N;
            None for one group of all rows.

    Returns:
        Distances ``[Q, k]`` in increasing order, float64 for float64 inputs and else float32; and indices ``[Q, k]``,
        int64, which are rows of ``points`` with groups too. With fewer than k points, in the group if there are groups,
        the rest is distance inf and index -1.

    Raises:
        TypeError: If an argument has the wrong type or the dtypes differ.
        ValueError: If shapes or devices do not fit, ``k`` is below 1 or not below 2^31 - 1, ``metric`` is unknown,
            or offsets decrease or do not run from 0 to the number of rows (checked for CPU tensors).

    Example:
        >>> points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
        >>> knn_topk(torch.zeros(1, 2), points, 2, metric="euclidean")
        (tensor([[0., 1.]]), tensor([[0, 2]]))

    Reference:
        Johnson, Douze and Jegou, "Billion-scale similarity search with GPUs", IEEE Transactions on Big Data 2021
        (exhaustive search by matrix products and k-selection).
    """
    for name, rows in (("queries", queries), ("points", points)):
        _check.floating(name, rows)
    if torch.is_autocast_enabled(queries.device.type):
        queries, points = _as_float(queries), _as_float(points)
    _check_arguments(queries, points, k, metric)
    offsets = _groups.split(groups, queries.shape[0], points.shape[0], queries.device)
    return torch.ops.mdprop.knn_topk(queries, points, k, metric, *offsets)  # type: ignore[no-any-return]


class KnnTopkFunction(torch.autograd.Function):
    """``torch.ops.mdprop.knn_topk`` as an autograd function of its arguments: ``(distances, indices)``."""

    @staticmethod
    def forward(
        queries: Tensor,
        points: Tensor,
        k: int,
        metric: str,
        query_offsets: Tensor | None = None,
        point_offsets: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Calls the op."""
        return torch.ops.mdprop.knn_topk(  # type: ignore[no-any-return]
            queries, points, k, metric, query_offsets, point_offsets
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Saves the inputs and the neighbours found."""
        queries, points, _, ctx.metric, *_ = inputs
        distances, indices = output
        ctx.mark_non_differentiable(indices)
        ctx.save_for_backward(queries, points, distances, indices)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """Gradients of queries and points."""
        grads = torch.ops.mdprop.knn_topk_backward(grad, *ctx.saved_tensors, ctx.metric)
        grad_queries, grad_points = (
            value if needed else None for value, needed in zip(grads, ctx.needs_input_grad[:2], strict=True)
        )
        return grad_queries, grad_points, None, None, None, None


class KnnTopkBackwardFunction(torch.autograd.Function):
    """The derivative of ``torch.ops.mdprop.knn_topk_backward``: refused."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Saves nothing."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Raises."""
        raise NotImplementedError("mdprop_ext.ops.knn_topk cannot be differentiated twice")


def _fake_forward(
    queries: Tensor,
    points: Tensor,
    k: int,
    metric: str,
    query_offsets: Tensor | None = None,
    point_offsets: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    shape = (queries.shape[0], k)
    return queries.new_empty(shape, dtype=_check.compute_dtype(queries)), queries.new_empty(shape, dtype=torch.int64)


def _fake_backward(grad: Tensor, queries: Tensor, points: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return queries.new_empty(queries.shape), points.new_empty(points.shape)


def _default(
    queries: Tensor,
    points: Tensor,
    k: int,
    metric: str,
    query_offsets: Tensor | None = None,
    point_offsets: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    groups = None if query_offsets is None or point_offsets is None else (query_offsets, point_offsets)
    return reference.knn_topk(queries, points, k, metric=metric, groups=groups)


register_op(
    "knn_topk",
    "(Tensor queries, Tensor points, int k, str metric, Tensor? query_offsets=None, Tensor? point_offsets=None) "
    "-> (Tensor distances, Tensor indices)",
    _default,
    _fake_forward,
)
register_op(
    "knn_topk_backward",
    "(Tensor grad, Tensor queries, Tensor points, Tensor distances, Tensor indices, str metric) "
    "-> (Tensor grad_queries, Tensor grad_points)",
    reference.knn_topk_backward,
    _fake_backward,
)
register_gradient("knn_topk", KnnTopkFunction)
register_gradient("knn_topk_backward", KnnTopkBackwardFunction)
for _device in ("cpu", "cuda"):
    torch.library.register_autocast("mdprop::knn_topk", _device, torch.float32)


def _as_float(rows: Tensor) -> Tensor:
    return rows if rows.dtype == torch.float64 else rows.float()


def _check_arguments(queries: Tensor, points: Tensor, k: int, metric: str) -> None:
    for name, rows in (("queries", queries), ("points", points)):
        if rows.dim() != 2:
            raise ValueError(f"{name}: expected two dimensions, got {list(rows.shape)}")
    if points.shape[1] != queries.shape[1]:
        raise ValueError(f"points: expected [N, D] with D = {queries.shape[1]} of queries, got {list(points.shape)}")
    if points.dtype != queries.dtype:
        raise TypeError(f"points: expected the dtype of queries, {queries.dtype}, got {points.dtype}")
    if points.device != queries.device:
        raise ValueError(f"points: expected the device of queries, {queries.device}, got {points.device}")
    _check.size("k", k)
    if metric not in METRICS:
        raise ValueError(f"metric: expected one of {METRICS}, got {metric!r}")
