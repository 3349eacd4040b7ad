"""The oracles of hamming_topk and its family: bit by bit, a matrix of all distances, a stable sort."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def pack_codes_oracle(codes: Tensor) -> Tensor:
    rows = []
    for row in codes.tolist():
        words = [0] * -(-len(row) // 64)
        for j, value in enumerate(row):
            words[j // 64] += 2 ** (j % 64) if value > 0 else 0
        rows.append([word - 2**64 if word >= 2**63 else word for word in words])
    return torch.tensor(rows, dtype=torch.int64).reshape(codes.shape[0], -(-codes.shape[1] // 64))


def unpack_codes_oracle(packed: Tensor, *, bits: int) -> Tensor:
    unpacked = np.unpackbits(packed.contiguous().numpy().view(np.uint8), axis=1, bitorder="little")
    return torch.from_numpy(unpacked[:, :bits]) == 1


def hamming_distance_oracle(queries: Tensor, codes: Tensor, *, bits: int) -> Tensor:
    query_bits, code_bits = (unpack_codes_oracle(words, bits=bits).float() for words in (queries, codes))
    return torch.cdist(query_bits, code_bits, p=0).int()


def relaxed_hamming_distance_oracle(queries: Tensor, codes: Tensor) -> Tensor:
    products = queries.double()[:, None, :] * codes.double()[None, :, :]
    return (queries.shape[1] - products.sum(2)) / 2


def hamming_topk_oracle(
    queries: Tensor, codes: Tensor, k: int, *, bits: int, groups: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    all_distances = hamming_distance_oracle(queries, codes, bits=bits)
    distances = torch.full((queries.shape[0], k), 2**31 - 1, dtype=torch.int32)
    indices = torch.full((queries.shape[0], k), -1)
    everything = (torch.tensor([0, queries.shape[0]]), torch.tensor([0, codes.shape[0]]))
    query_offsets, point_offsets = (offsets.tolist() for offsets in groups or everything)
    for group, first in enumerate(point_offsets[:-1]):
        rows = slice(query_offsets[group], query_offsets[group + 1])
        seen = all_distances[rows, first : point_offsets[group + 1]]
        order = torch.from_numpy(np.argsort(seen.numpy(), axis=1, kind="stable")[:, :k])
        distances[rows, : order.shape[1]] = seen.gather(1, order)
        indices[rows, : order.shape[1]] = order + first
    return distances, indices
