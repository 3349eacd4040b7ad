"""Binary codes: packing into words and exact nearest neighbours by Hamming distance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mdprop_ext.ops import _check, _groups, _packed
from mdprop_ext.ops._register import register_op
from mdprop_ext.reference import hamming_topk as reference

NUMBERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, *_check.FLOATING)


def hamming_topk(
    queries: Tensor, codes: Tensor, k: int, *, bits: int, groups: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Finds the k nearest codes of each query without a matrix of all distances.

    The distance counts the positions, among the first ``bits``, in which two codes differ::

        d(q, c) = popcount(q xor c)

    The pairs (distance, index) are sorted, so the lower index wins a tie. Exact: the same for every number of threads,
    instruction set and device. Bits beyond ``bits`` in the last word do not count.

    With ``groups``, a query only sees the codes of its own group: one call in place of a loop over groups.

    Args:
        queries: ``[Q, W]`` int64, packed as by :func:`pack_codes`, with W = ceil(bits / 64).
        codes: ``[N, W]`` int64, on the same device.
        k: How many neighbours, >= 1; it may exceed N.
        bits: Length of a code, >= 1.
        groups: ``(query_offsets, point_offsets)``, int64 ``[G + 1]`` each, on the same device. The queries from row
            ``query_offsets[g]`` up to ``query_offsets[g + 1]`` see the codes from row ``point_offsets[g]`` up to
            ``point_offsets[g + 1]``; either may be none. Offsets run from 0 to Q and to N and never decrease. None:
            every query sees every code.

    Returns:
        Distances ``[Q, k]``, int32, in increasing order, and indices ``[Q, k]``, int64: rows of ``codes``, with groups
        too. With fewer than k codes the rest is distance 2^31 - 1 and index -1. Neither carries a gradient.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If shapes or devices do not fit, ``k`` or ``bits`` is below 1 or not below 2^31 - 1, or offsets on
            the CPU are not as above; on other devices, wrong offsets are an error of the device.

    Example:
        >>> codes = pack_codes(torch.tensor([[1, 1, 0], [0, 1, 0], [1, 1, 1]]))
        >>> hamming_topk(codes[:1], codes, 2, bits=3)
        (tensor([[0, 1]], dtype=torch.int32), tensor([[0, 1]]))
        >>> groups = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 3])
        >>> hamming_topk(codes[:2], codes, 1, bits=3, groups=groups)
        (tensor([[0],
                [0]], dtype=torch.int32), tensor([[0],
                [1]]))

    Reference:
        Harley's and Seal's carry-save counting, in Warren, "Hacker's Delight", 2nd edition, 2012, section 5-1.
    """
    _check.size("bits", bits)
    _check.size("k", k)
    _packed.check_pair(queries, codes, bits)
    offsets = _groups.split(groups, queries.shape[0], codes.shape[0], queries.device)
    return torch.ops.mdprop.hamming_topk(queries, codes, k, bits, *offsets)  # type: ignore[no-any-return]


class HammingTopkFunction(torch.autograd.Function):
    """``torch.ops.mdprop.hamming_topk`` as an autograd function, whose integer results carry no gradient."""

    @staticmethod
    def forward(
        queries: Tensor,
        codes: Tensor,
        k: int,
        bits: int,
        query_offsets: Tensor | None,
        point_offsets: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Calls the op."""
        return torch.ops.mdprop.hamming_topk(  # type: ignore[no-any-return]
            queries, codes, k, bits, query_offsets, point_offsets
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Marks the results as not differentiable."""
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[None, ...]:
        """Never called with a gradient, since the results require none."""
        return (None,) * 6


def pack_codes(codes: Tensor) -> Tensor:
    """Packs binary codes into 64-bit words: bit j of a row is bit j % 64 of word j // 64.

    Args:
        codes: ``[N, K]`` bool, or integers or floating-point numbers, of which those > 0 are 1 (NaN is not); K >= 1.

    Returns:
        ``[N, ceil(K / 64)]`` int64; the bits beyond K are 0. It carries no gradient.

    Raises:
        TypeError: If ``codes`` is not a tensor of numbers.
        ValueError: If ``codes`` is not ``[N, K]`` with K >= 1.

    Example:
        >>> pack_codes(torch.tensor([[0.3, -1.0, 2.0]]))
        tensor([[5]])
    """
    _check.tensor("codes", codes)
    if codes.dtype not in NUMBERS:
        raise TypeError(f"codes: expected bool, integers or floating-point numbers, got {codes.dtype}")
    if codes.dim() != 2 or codes.shape[1] == 0:
        raise ValueError(f"codes: expected [N, K] with K >= 1, got {list(codes.shape)}")
    return torch.ops.mdprop.pack_codes(codes)  # type: ignore[no-any-return]


def unpack_codes(packed: Tensor, *, bits: int) -> Tensor:
    """Unpacks the words of :func:`pack_codes`.

    Args:
        packed: ``[N, ceil(bits / 64)]`` int64; bits beyond ``bits`` are ignored.
        bits: Length of a code, >= 1.

    Returns:
        ``[N, bits]`` bool.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If the shape does not fit ``bits``, or ``bits`` is below 1.

    Example:
        >>> unpack_codes(torch.tensor([[5]]), bits=3)
        tensor([[ True, False,  True]])
    """
    _check.size("bits", bits)
    _packed.check("packed", packed, bits)
    return torch.ops.mdprop.unpack_codes(packed, bits)  # type: ignore[no-any-return]


def _default_topk(
    queries: Tensor,
    codes: Tensor,
    k: int,
    bits: int,
    query_offsets: Tensor | None = None,
    point_offsets: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    groups = None if query_offsets is None or point_offsets is None else (query_offsets, point_offsets)
    return reference.hamming_topk(queries, codes, k, bits=bits, groups=groups)


def _default_unpack(packed: Tensor, bits: int) -> Tensor:
    return reference.unpack_codes(packed, bits=bits)


def _fake_topk(queries: Tensor, codes: Tensor, k: int, *rest: Any) -> tuple[Tensor, Tensor]:
    shape = (queries.shape[0], k)
    return queries.new_empty(shape, dtype=torch.int32), queries.new_empty(shape, dtype=torch.int64)


def _fake_pack(codes: Tensor) -> Tensor:
    return codes.new_empty((codes.shape[0], (codes.shape[1] + 63) // 64), dtype=torch.int64)


def _fake_unpack(packed: Tensor, bits: int) -> Tensor:
    return packed.new_empty((packed.shape[0], bits), dtype=torch.bool)


# No gradient formulae: integers are never differentiated, and a formula would cost every call eight microseconds.
register_op(
    "hamming_topk",
    "(Tensor queries, Tensor codes, int k, int bits, Tensor? query_offsets=None, Tensor? point_offsets=None) "
    "-> (Tensor distances, Tensor indices)",
    _default_topk,
    _fake_topk,
)
register_op("pack_codes", "(Tensor codes) -> Tensor", reference.pack_codes, _fake_pack)
register_op("unpack_codes", "(Tensor packed, int bits) -> Tensor", _default_unpack, _fake_unpack)
