"""Exact nearest neighbours of vectors and of binary codes, without a matrix of all distances.

Needs torch and numpy only. Run: python examples/nearest_neighbours.py
"""

import torch

from mdprop_ext import ops

BITS, K = 256, 10

torch.manual_seed(0)
centres = torch.randn(50, 64)
points = (centres[torch.arange(5000) % 50] + 0.5 * torch.randn(5000, 64)).requires_grad_()
queries = (centres + 0.5 * torch.randn(50, 64)).requires_grad_()

# Exact: what float64 distances, rounded once and sorted with their index, give; on any number of threads.
distances, neighbours = ops.knn_topk(queries, points, K, metric="sqeuclidean")
matrix = (queries.detach().double()[:, None] - points.detach().double()).square().sum(2)
expected = matrix.float().sort(dim=1, stable=True).indices[:, :K]
print(f"kNN       {K} of {len(points)} points, equal to a full sort: {torch.equal(neighbours, expected)}")

# Distances carry gradients: this pulls each query towards its neighbours.
(gradient,) = torch.autograd.grad(distances.sum(), queries)
by_formula = 2 * (queries[:, None] - points[neighbours]).sum(1)
print(f"gradient  equal to the formula: {torch.allclose(gradient, by_formula, rtol=1e-4, atol=1e-4)}")

# Random hyperplanes turn vectors into codes of 256 bits, 32 bytes each.
planes = torch.randn(64, BITS)
query_codes, codes = ops.pack_codes(queries @ planes), ops.pack_codes(points @ planes)
hamming, similar = ops.hamming_topk(query_codes, codes, K, bits=BITS)
same_cluster = (similar % 50 == torch.arange(50)[:, None]).float().mean()
print(f"Hamming   {K} nearest codes: {100 * same_cluster:.0f} % from the query's own cluster")
print(f"          they differ in {hamming.float().mean():.0f} of {BITS} bits; all codes take {codes.numel() * 8} bytes")
