// What the filter's kernel (knn_topk_scan.cuh) is given, and how its shared memory is laid out.
#pragma once

#include "common/device.cuh"
#include "knn_topk/knn_topk_cuda_plan.h"
#include "knn_topk/knn_topk_select.cuh"

namespace mdprop {
namespace {

constexpr int kChunk = 64;          // features of a stage
constexpr int kPitch = kChunk + 8;  // rows in shared memory start four banks apart, so that ldmatrix meets no conflict
constexpr int kStep = 16;           // features of one product
constexpr int kWarpRows = 32, kWarpPoints = 64;  // scores of one warp: 2 x 8 products
constexpr int kRowProducts = kWarpRows / 16, kPointProducts = kWarpPoints / 8;
constexpr size_t kMaxScanShared = 96 << 10;  // what every card gives a block

// Rows in bf16 take packed_bytes, or one tile, of much less than 2^31 bytes, so that numbers of values fit an int.
struct ScanArgs {
  const BFloat16* queries;    // [rows, padded_dim] negated
  const float* query_bounds;  // [2, rows] norm and error
  const int32_t* begins;      // [rows]
  const int32_t* ends;        // [rows]
  const BFloat16* points;     // of the chunk: [padded_points, padded_dim]
  const float* point_bounds;  // [3, padded_points] bias, norm and error
  NarrowKey* keys;            // [rows * splits, capacity]
  int* counts;                // [rows * splits]
  float* thresholds;          // [rows * splits]
  int first_point;            // of the chunk
  int padded_points;          // whole tiles
  int rows;                   // whole blocks
  int padded_dim, splits, kept, capacity;
};

template <int kRows>
struct alignas(16) ScanShared {
  static constexpr int kWarps = kRows / kWarpRows * (kKnnFilterPoints / kWarpPoints);
  static constexpr int kThreads = kWarps * kWarpSize;

  BFloat16 points[2][kKnnFilterPoints][kPitch];
  float bounds[2][3][kKnnFilterPoints];
  int64_t lists[kRows];     // where their candidates are kept
  float thresholds[kRows];  // scores from here on are dropped
  float norms[kRows], errors[kRows];
  int32_t begins[kRows], ends[kRows];
  int counts[kRows];
  unsigned histograms[kWarps][kBins];
  int crowded;  // whether a list has no room for another tile
  // Follows in memory: BFloat16 queries[slots][kRows][kPitch], one slot a chunk where they fit, else two that take
  // turns.
};

template <int kRows>
int scan_slots(int64_t padded_dim) {
  const int64_t chunks = (padded_dim + kChunk - 1) / kChunk;
  const int64_t bytes = sizeof(ScanShared<kRows>) + chunks * kRows * kPitch * sizeof(BFloat16);
  return static_cast<int>(bytes <= static_cast<int64_t>(kMaxScanShared) ? chunks : 2);
}

template <int kRows>
size_t scan_shared_bytes(int slots) {
  return sizeof(ScanShared<kRows>) + size_t{kRows} * kPitch * sizeof(BFloat16) * slots;
}

}  // namespace
}  // namespace mdprop
