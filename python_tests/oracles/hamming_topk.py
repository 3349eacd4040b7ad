"""The oracles of hamming_topk, pack_codes and unpack_codes: bit by bit, a matrix of all distances, a stable sort."""

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


def hamming_topk_oracle(queries: Tensor, codes: Tensor, k: int, *, bits: int) -> tuple[Tensor, Tensor]:
    query_bits, code_bits = (unpack_codes_oracle(words, bits=bits).float() for words in (queries, codes))
    all_distances = torch.cdist(query_bits, code_bits, p=0).to(torch.int16).numpy()
    order = torch.from_numpy(np.argsort(all_distances, axis=1, kind="stable")[:, :k])
    distances = torch.full((queries.shape[0], k), 2**31 - 1, dtype=torch.int32)
    indices = torch.full((queries.shape[0], k), -1)
    distances[:, : order.shape[1]] = torch.from_numpy(all_distances).int().gather(1, order)
    indices[:, : order.shape[1]] = order
    return distances, indices
