"""One row a public op; the contract test runs every row."""

from op_case_hamming_topk import HAMMING_TOPK, PACK_CODES, UNPACK_CODES
from op_case_knn_topk import KNN_TOPK
from op_case_multi_batch_norm import MULTI_BATCH_NORM
from op_case_pgd_step import PGD_STEP
from op_case_random_start import RANDOM_START

OP_CASES = (MULTI_BATCH_NORM, PGD_STEP, RANDOM_START, KNN_TOPK, HAMMING_TOPK, PACK_CODES, UNPACK_CODES)
