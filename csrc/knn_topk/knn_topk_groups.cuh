// Ragged groups on the card: offsets are checked, and each query finds its group.
#pragma once

#include <cstdint>

#include "common/device.cuh"
#include "common/launch.h"

namespace mdprop {
namespace {

// One thread an offset.
__global__ void knn_check_offsets_kernel(const int64_t* query_offsets, const int64_t* point_offsets, int64_t num_groups,
                                         int64_t num_queries, int64_t num_points) {
  const int64_t group = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (group > num_groups) return;
  const auto fits = [=](const int64_t* offsets, int64_t rows) {
    const int64_t before = group == 0 ? 0 : offsets[group - 1];
    return before <= offsets[group] && (group > 0 || offsets[0] == 0) && (group < num_groups || offsets[group] == rows);
  };
  device_check(fits(query_offsets, num_queries),
               "knn_topk: query_offsets must never decrease, from 0 to the number of queries");
  device_check(fits(point_offsets, num_points),
               "knn_topk: point_offsets must never decrease, from 0 to the number of points");
}

inline void check_offsets(const int64_t* query_offsets, const int64_t* point_offsets, int64_t num_groups,
                          int64_t num_queries, int64_t num_points, void* stream) {
  launch<knn_check_offsets_kernel>(static_cast<unsigned>(num_groups / 256 + 1), 256, 0, stream, query_offsets,
                                   point_offsets, num_groups, num_queries, num_points);
}

// The group that holds a row: the last one that begins at or before it, as empty groups hold none.
__device__ inline int64_t group_of_row(const int64_t* offsets, int64_t num_groups, int64_t row) {
  int64_t low = 0, high = num_groups;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (offsets[middle] <= row ? low : high) = middle;
  }
  return low;
}

}  // namespace
}  // namespace mdprop
