// Distances that decide: fp64, in the order of additions of the CPU (knn_topk_sums.h). Eight neighbouring lanes of a
// warp hold the eight partial sums of a pair, so a warp measures four pairs at once.
#pragma once

#include "common/device.cuh"
#include "knn_topk/knn_topk_keys.cuh"

namespace mdprop {
namespace {

constexpr int kSumLanes = 8;
constexpr int kWarpPairs = kWarpSize / kSumLanes;

__device__ __forceinline__ int sum_lane() { return lane_id() % kSumLanes; }

// The sum over eight lanes, the same in each.
__device__ __forceinline__ double sum_of_lanes(double sum) {
  for (int lanes = kSumLanes / 2; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kAllLanes, sum, lanes);
  return sum;
}

// The squared norm of a row less the centre, which may be null. All lanes of a warp call it, as they do the next.
template <typename T>
__device__ double measure_square(const T* row, const float* centre, int64_t dim) {
  double sum = 0;
  for (int64_t d = sum_lane(); d < dim; d += kSumLanes) {
    const double value = double{widen(row[d])} - (centre == nullptr ? 0.0 : double{centre[d]});
    sum += value * value;
  }
  return sum_of_lanes(sum);
}

// query_square is <q, q>; only the cosine reads it.
template <typename T>
__device__ double measure_pair(KnnMetric metric, const T* query, double query_square, const T* point, int64_t dim) {
  double sum = 0, point_square = 0;
  if (is_euclidean(metric)) {
    for (int64_t d = sum_lane(); d < dim; d += kSumLanes) {
      const double difference = double{widen(query[d])} - double{widen(point[d])};
      sum += difference * difference;
    }
  } else {
    for (int64_t d = sum_lane(); d < dim; d += kSumLanes) {
      const double value = widen(point[d]);
      sum += double{widen(query[d])} * value;
      point_square += value * value;
    }
  }
  return distance_from_sums(metric, sum_of_lanes(sum), query_square, sum_of_lanes(point_square));
}

template <typename T>
struct MeasureArgs {
  const T* queries;       // of the chunk: [rows, dim]
  const T* points;        // [N, dim]
  const double* squares;  // [rows]
  NarrowKey* keys;        // [rows * splits, capacity]
  const int* counts;      // [rows * splits]
  int64_t rows, dim;
  int splits, capacity;
  KnnMetric metric;
};

constexpr int kMeasureWarps = 8;

// Replaces the scores of the candidates in each list by distances. One warp a list.
template <typename T>
__global__ void __launch_bounds__(kMeasureWarps* kWarpSize)
    knn_measure_kernel(const __grid_constant__ MeasureArgs<T> args) {
  const int64_t list = int64_t{blockIdx.x} * kMeasureWarps + warp_id();
  if (list >= args.rows * args.splits) return;
  const int64_t row = list / args.splits;
  const int count = args.counts[list];
  NarrowKey* keys = args.keys + list * args.capacity;
  for (int first = 0; first < count; first += kWarpPairs) {
    // Lanes beyond the last candidate measure it again: all must take part in the sums.
    const int place = first + lane_id() / kSumLanes;
    const uint32_t point = keys[place < count ? place : count - 1].index();
    const double distance = measure_pair(args.metric, args.queries + row * args.dim, args.squares[row],
                                         args.points + point * args.dim, args.dim);
    __syncwarp();  // every lane has read before one writes
    if (place < count && sum_lane() == 0) keys[place] = NarrowKey::make(round_distance<float>(distance), point);
  }
}

}  // namespace
}  // namespace mdprop
