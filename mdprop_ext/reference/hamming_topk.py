"""hamming_topk, hamming_distance, pack_codes and unpack_codes in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

# What one tile of keys may hold: 16 MB of float32.
TILE_VALUES = 1 << 22
MIN_TILE_CODES = 1 << 12
MAX_TILE_CODES = 1 << 14


def pack_codes(codes: Tensor) -> Tensor:
    """Bits of rows into words; see ``mdprop_ext.ops.pack_codes``."""
    positive = codes.new_zeros(codes.shape[0], -(-codes.shape[1] // 64) * 64, dtype=torch.bool)
    positive[:, : codes.shape[1]] = codes > 0
    # Eight flags are one int64; the product gathers its byte i at bit 56 + i, and no two terms meet.
    eight = positive.view(torch.int64) * 0x0102040810204080
    return (eight >> 56).to(torch.uint8).view(torch.int64)


def unpack_codes(packed: Tensor, *, bits: int) -> Tensor:
    """Words into bits of rows; see ``mdprop_ext.ops.unpack_codes``."""
    return _decode(packed, bits, _byte_bits(packed.device)).contiguous()


def hamming_distance(queries: Tensor, codes: Tensor, *, bits: int) -> Tensor:
    """Distances of all pairs of packed codes; see ``mdprop_ext.ops.hamming_distance``."""
    with torch.autocast(queries.device.type, enabled=False):
        # Every partial sum is an integer, exact in float32 up to 2^24.
        dtype = torch.float32 if bits <= 2**24 else torch.float64
        signs = _byte_bits(queries.device).to(dtype) * 2 - 1
        return relaxed_hamming_distance(_decode(queries, bits, signs), _decode(codes, bits, signs)).to(torch.int32)


def relaxed_hamming_distance(queries: Tensor, codes: Tensor) -> Tensor:
    """Distances of all pairs of relaxed codes; see ``mdprop_ext.ops.hamming_distance``."""
    if queries.dtype != torch.float64:
        queries, codes = queries.float(), codes.float()
    return torch.addmm(queries.new_full((1, 1), queries.shape[1] / 2), queries, codes.T, alpha=-0.5)


def hamming_topk(
    queries: Tensor, codes: Tensor, k: int, *, bits: int, groups: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Exact nearest codes; see ``mdprop_ext.ops.hamming_topk``.

    With bits as +-1, ``distance = (bits - <q, c>) / 2``. One matrix product a tile of codes gives ``distance * tile +
    index`` as an exact integer in floating point: a key without ties, whose smallest values are the answer.
    """
    # Keys are exact in the dtype chosen below, and not in the one that autocast would choose.
    with torch.autocast(queries.device.type, enabled=False):
        if groups is None:
            return _search(queries, codes, k, bits)
        distances = torch.empty((queries.shape[0], k), dtype=torch.int32, device=queries.device)
        indices = torch.empty((queries.shape[0], k), dtype=torch.int64, device=queries.device)
        (start, *stops), (first, *lasts) = (offsets.tolist() for offsets in groups)
        for stop, last in zip(stops, lasts, strict=True):
            found = _search(queries[start:stop], codes[first:last], k, bits)
            distances[start:stop] = found[0]
            indices[start:stop] = torch.where(found[1] < 0, -1, found[1] + first)
            start, first = stop, last
        return distances, indices


def _search(queries: Tensor, codes: Tensor, k: int, bits: int) -> tuple[Tensor, Tensor]:
    found = min(k, codes.shape[0])
    distances = torch.full((queries.shape[0], k), 2**31 - 1, dtype=torch.int32, device=queries.device)
    indices = torch.full((queries.shape[0], k), -1, dtype=torch.int64, device=queries.device)
    if found == 0 or queries.shape[0] == 0:
        return distances, indices
    dtype = torch.float32 if (bits + 1) * MIN_TILE_CODES <= 2**24 else torch.float64
    tile = min(MAX_TILE_CODES, 2 ** ((2**24 if dtype == torch.float32 else 2**52) // (bits + 1)).bit_length() // 2)
    rows = max(1, TILE_VALUES // min(tile, codes.shape[0]))
    signs = _byte_bits(queries.device).to(dtype) * 2 - 1
    best: list[Tensor | None] = [None] * -(-queries.shape[0] // rows)
    for first in range(0, codes.shape[0], tile):
        # The factor tile / 2 is a power of two, exact in every precision that a matrix product may use.
        columns = _decode(codes[first : first + tile], bits, signs * (-tile / 2)).T
        offset = torch.arange(columns.shape[1], dtype=dtype, device=queries.device) + bits * tile / 2
        for block, start in enumerate(range(0, queries.shape[0], rows)):
            keys = torch.addmm(offset, _decode(queries[start : start + rows], bits, signs), columns)
            near = keys.topk(min(found, keys.shape[1]), largest=False, sorted=False).values.to(torch.int64)
            near = (near // tile) * codes.shape[0] + near % tile + first
            best[block] = _smallest(near, best[block], found)
    for block, unsorted in enumerate(best):
        assert unsorted is not None
        keys = unsorted.sort(dim=1).values
        part = slice(block * rows, (block + 1) * rows)
        distances[part, :found] = keys // codes.shape[0]
        indices[part, :found] = keys % codes.shape[0]
    return distances, indices


def _smallest(keys: Tensor, others: Tensor | None, k: int) -> Tensor:
    if others is not None:
        keys = torch.cat([others, keys], 1)
    return keys.topk(k, largest=False, sorted=False).values if keys.shape[1] > k else keys


def _byte_bits(device: torch.device) -> Tensor:
    """Bool ``[256, 8]``: the bits of every byte."""
    byte, bit = torch.arange(256, device=device), torch.arange(8, device=device)
    return (byte[:, None] >> bit & 1).to(torch.bool)


def _decode(packed: Tensor, bits: int, table: Tensor) -> Tensor:
    """``[N, bits]``, each byte's eight values looked up in ``table`` ``[256, 8]``."""
    # A clone, since a tensor of one row or none may call itself contiguous whatever its strides.
    values = table[packed.clone(memory_format=torch.contiguous_format).view(torch.uint8).int()]
    return values.flatten(1)[:, :bits]
