"""One row a public op; the contract test runs every row."""

from op_case_hamming_topk import (
    HAMMING_DISTANCE,
    HAMMING_TOPK,
    PACK_CODES,
    RELAXED_HAMMING_DISTANCE,
    UNPACK_CODES,
)
from op_case_knn_topk import KNN_TOPK
from op_case_multi_batch_norm import MULTI_BATCH_NORM
from op_case_multi_batch_norm_mixture import MULTI_BATCH_NORM_MIXTURE
from op_case_pgd_step import PGD_STEP
from op_case_random_start import RANDOM_START

OP_CASES = (
    MULTI_BATCH_NORM,
    MULTI_BATCH_NORM_MIXTURE,
    PGD_STEP,
    RANDOM_START,
    KNN_TOPK,
    HAMMING_TOPK,
    HAMMING_DISTANCE,
    RELAXED_HAMMING_DISTANCE,
    PACK_CODES,
    UNPACK_CODES,
)
