"""Hamming distances of all pairs: of packed codes, and of relaxed codes with a gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mdprop_ext.ops import _check, _packed
from mdprop_ext.ops._register import register_gradient, register_op
from mdprop_ext.reference import hamming_topk as reference


def hamming_distance(queries: Tensor, codes: Tensor, *, bits: int | None = None) -> Tensor:
    """Computes the Hamming distance of every query to every code.

    Packed codes are compared bit by bit; relaxed codes, whose values in [-1, 1] stand for bits on their way to -1 and
    1, by the formula that gives the same number for +-1::

        packed   d(q, c) = popcount(q xor c)
        relaxed  d(q, c) = (K - <q, c>) / 2

    The relaxed distance has gradients of every order to both inputs. Its product is torch's, in float32 for half types
    and under autocast. Values outside [-1, 1] are not refused.

    Args:
        queries: ``[Q, ceil(bits / 64)]`` int64, packed as by :func:`pack_codes`; or relaxed codes ``[Q, K]``, float32,
            float64, bfloat16 or float16.
        codes: ``[N, ceil(bits / 64)]`` or ``[N, K]``, of the same dtype and device.
        bits: Length of a packed code, >= 1; None for relaxed codes.

    Returns:
        ``[Q, N]``: int32 in [0, bits] for packed codes; for relaxed codes float64 if they are, else float32, in [0, K].

    Raises:
        TypeError: If an argument has the wrong type, the dtypes differ, or ``bits`` is missing for packed codes.
        ValueError: If shapes or devices do not fit, ``bits`` is below 1, or given for relaxed codes.

    Example:
        >>> codes = torch.tensor([[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]])
        >>> hamming_distance(codes, codes)
        tensor([[0., 1.],
                [1., 0.]])
        >>> hamming_distance(pack_codes(codes), pack_codes(codes), bits=3)
        tensor([[0, 1],
                [1, 0]], dtype=torch.int32)

    Reference:
        Liu, Wang, Shan and Chen, "Deep supervised hashing for fast image retrieval", CVPR 2016 (relaxed codes).
    """
    _check.tensor("queries", queries)
    if not queries.is_floating_point():
        if bits is None:
            raise TypeError("bits: expected the length of the packed codes, got None")
        _check.size("bits", bits)
        _packed.check_pair(queries, codes, bits)
        return torch.ops.mdprop.hamming_distance(queries, codes, bits)  # type: ignore[no-any-return]
    if bits is not None:
        raise ValueError(f"bits: expected None for relaxed codes, whose length is that of a row, got {bits!r}")
    _check_relaxed(queries, codes)
    return torch.ops.mdprop.relaxed_hamming_distance(queries, codes)  # type: ignore[no-any-return]


class HammingDistanceFunction(torch.autograd.Function):
    """``torch.ops.mdprop.hamming_distance`` as an autograd function, whose integer result carries no gradient."""

    @staticmethod
    def forward(queries: Tensor, codes: Tensor, bits: int) -> Tensor:
        """Calls the op."""
        return torch.ops.mdprop.hamming_distance(queries, codes, bits)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Marks the result as not differentiable."""
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> tuple[None, ...]:
        """Never called with a gradient, since the result requires none."""
        return (None,) * 3


class RelaxedHammingDistanceFunction(torch.autograd.Function):
    """``torch.ops.mdprop.relaxed_hamming_distance`` as an autograd function of queries and codes."""

    @staticmethod
    def forward(queries: Tensor, codes: Tensor) -> Tensor:
        """Calls the op."""
        return torch.ops.mdprop.relaxed_hamming_distance(queries, codes)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Saves the inputs."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of queries and codes, by torch's own ops and so differentiable themselves."""
        queries, codes = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        with torch.autocast(grad.device.type, enabled=False):
            half = grad * -0.5
            return (
                (half @ codes.to(grad.dtype)).to(queries.dtype) if wanted[0] else None,
                (half.T @ queries.to(grad.dtype)).to(codes.dtype) if wanted[1] else None,
            )


def _default(queries: Tensor, codes: Tensor, bits: int) -> Tensor:
    return reference.hamming_distance(queries, codes, bits=bits)


def _fake(queries: Tensor, codes: Tensor, bits: int) -> Tensor:
    return queries.new_empty((queries.shape[0], codes.shape[0]), dtype=torch.int32)


def _fake_relaxed(queries: Tensor, codes: Tensor) -> Tensor:
    return queries.new_empty((queries.shape[0], codes.shape[0]), dtype=_check.compute_dtype(queries))


register_op("hamming_distance", "(Tensor queries, Tensor codes, int bits) -> Tensor", _default, _fake)
# One matrix product, which no kernel of ours would speed up.
register_op(
    "relaxed_hamming_distance",
    "(Tensor queries, Tensor codes) -> Tensor",
    reference.relaxed_hamming_distance,
    _fake_relaxed,
    compiled=False,
)
register_gradient("relaxed_hamming_distance", RelaxedHammingDistanceFunction)
for _device in ("cpu", "cuda"):
    torch.library.register_autocast("mdprop::relaxed_hamming_distance", _device, torch.float32)


def _check_relaxed(queries: Tensor, codes: object) -> None:
    for name, rows in (("queries", queries), ("codes", codes)):
        _check.floating(name, rows)
    assert isinstance(codes, Tensor)
    if queries.dim() != 2:
        raise ValueError(f"queries: expected [Q, K], got {list(queries.shape)}")
    if codes.dim() != 2 or codes.shape[1] != queries.shape[1]:
        raise ValueError(f"codes: expected [N, {queries.shape[1]}] as queries have, got {list(codes.shape)}")
    if codes.dtype != queries.dtype:
        raise TypeError(f"codes: expected the dtype of queries, {queries.dtype}, got {codes.dtype}")
    if codes.device != queries.device:
        raise ValueError(f"codes: expected the device of queries, {queries.device}, got {codes.device}")
