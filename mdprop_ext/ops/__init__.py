"""The ops of the package: public functions, each over ``torch.ops.mdprop.<op>``."""

from mdprop_ext.ops import _cuda_probe as _cuda_probe
from mdprop_ext.ops._register import BackendError, load_extension
from mdprop_ext.ops.hamming_distance import (
    HammingDistanceFunction,
    RelaxedHammingDistanceFunction,
    hamming_distance,
)
from mdprop_ext.ops.hamming_topk import HammingTopkFunction, hamming_topk, pack_codes, unpack_codes
from mdprop_ext.ops.knn_topk import KnnTopkFunction, knn_topk
from mdprop_ext.ops.multi_batch_norm import MultiBatchNormFunction, multi_batch_norm
from mdprop_ext.ops.multi_batch_norm_mixture import MultiBatchNormMixtureFunction, multi_batch_norm_mixture
from mdprop_ext.ops.pgd_step import PgdStepFunction, pgd_step
from mdprop_ext.ops.random_start import RandomStartFunction, random_start

__all__ = [
    "BackendError",
    "HammingDistanceFunction",
    "HammingTopkFunction",
    "KnnTopkFunction",
    "MultiBatchNormFunction",
    "MultiBatchNormMixtureFunction",
    "PgdStepFunction",
    "RandomStartFunction",
    "RelaxedHammingDistanceFunction",
    "hamming_distance",
    "hamming_topk",
    "knn_topk",
    "multi_batch_norm",
    "multi_batch_norm_mixture",
    "pack_codes",
    "pgd_step",
    "random_start",
    "unpack_codes",
]

# Schemas exist from here on; the compiled kernels register themselves for them.
load_extension()
