// Exact nearest neighbours of dense vectors, and their gradient.
//
// knn_topk: for every query the k points with the smallest (distance, index) pairs, in increasing order. A distance is
// computed in fp64 from the given inputs by the direct formula, sums in a fixed order (knn_topk_math.h), and rounded
// once to acc_t<T>:
//   kSquaredEuclidean  sum (q - x)^2               kEuclidean  its square root
//   kCosine            1 - <q, x> / (|q| |x|) in [0, 2], 1 where a norm is 0
//   kDot               -<q, x>
// -0 is +0. NaN comes after infinity; the lower index wins a tie; with fewer than k points the rest is index
// kNoNeighbour at distance infinity. With groups, the queries of a group see its points only; groups may be empty. The
// bits of the result are equal for every thread count and instruction set. Cost: Q * N * D multiply-adds in acc_t<T>,
// and about k distances in fp64 a query; scratch memory is bounded whatever Q and N are (knn_topk_plan.h).
//
// knn_topk_backward: gradients of sum(grad * distances) for the neighbours found, summed in fp64 in the order of the
// pairs (query, rank) without atomics. The euclidean distance has gradient 0 at 0, the cosine distance at a zero
// vector.
#pragma once

#include <cstdint>

#include "common/cpu_isa.h"
#include "common/numeric.h"

namespace mdprop {

inline constexpr int64_t kNoNeighbour = -1;

enum class KnnMetric { kSquaredEuclidean, kEuclidean, kCosine, kDot };

// Inputs and outputs are dense rows that do not overlap.
template <typename T>
struct KnnTopkArgs {
  const T* queries;     // [Q, D]
  const T* points;      // [N, D]
  acc_t<T>* distances;  // [Q, k]
  int64_t* indices;     // [Q, k]
  int64_t num_queries;  // Q >= 0
  int64_t num_points;   // 0 <= N < 2^31
  int64_t dim;          // D >= 0
  int64_t k;            // >= 1
  KnnMetric metric;
  // Group g holds the rows from offset g up to offset g + 1, which never decrease. Null: one group of all rows.
  const int64_t* query_offsets = nullptr;  // [G + 1], from 0 to Q
  const int64_t* point_offsets = nullptr;  // [G + 1], from 0 to N
  int64_t num_groups = 1;                  // G >= 0
  // CUDA only. Candidate lists take list_bytes at most, or what one block needs; queries in bf16 and points in bf16
  // packed_bytes each at most, or what one tile needs.
  int64_t list_bytes = int64_t{1} << 28;
  int64_t packed_bytes = int64_t{1} << 27;
  void* workspace = nullptr;  // knn_topk_workspace(args) bytes (knn_topk_cuda_plan.h)
};

template <typename T>
struct KnnTopkBackwardArgs {
  const acc_t<T>* grad;       // [Q, k]
  const T* queries;           // [Q, D]
  const T* points;            // [N, D]
  const acc_t<T>* distances;  // [Q, k], of the forward pass
  const int64_t* indices;     // [Q, k], of the forward pass: in [0, N), or kNoNeighbour
  T* grad_queries;            // [Q, D]
  T* grad_points;             // [N, D]
  int64_t num_queries;        // Q
  int64_t num_points;         // N
  int64_t dim;                // D
  int64_t k;
  KnnMetric metric;
  void* workspace = nullptr;  // CUDA only: knn_topk_backward_workspace(args) bytes (knn_topk_cuda_plan.h)
};

MDPROP_DECLARE_KERNELS(knn_topk, KnnTopkArgs)
MDPROP_DECLARE_KERNELS(knn_topk_backward, KnnTopkBackwardArgs)

}  // namespace mdprop
