// The direct search: every pair is measured in fp64. For fp64 inputs, for small problems, and for queries whose
// certificate failed.
#pragma once

#include "knn_topk/knn_topk_cuda_plan.h"
#include "knn_topk/knn_topk_exact.cuh"
#include "knn_topk/knn_topk_select.cuh"

namespace mdprop {
namespace {

constexpr int kDirectThreads = 256;
constexpr int kDirectWarps = kDirectThreads / kWarpSize;
constexpr int kDirectDims = 32;                // features staged in shared memory at a time
constexpr int kDirectPitch = kDirectDims + 8;  // two rows start 16 banks apart
constexpr int kThreadRows = 4, kThreadPoints = 8;
constexpr int kThreadPairs = kThreadRows * kThreadPoints;
static_assert(kDirectThreads / kSumLanes * kThreadPairs == kKnnDirectRows * kKnnDirectPoints);

template <typename T>
struct DirectArgs {
  const T* queries;         // of the chunk: [rows, dim]
  const T* points;          // [N, dim]
  const int32_t* begins;    // [rows]
  const int32_t* ends;      // [rows]
  const double* squares;    // [rows]
  const int* listed;        // [rows] the queries to search, or null for all
  const int* listed_count;  // [1], or null
  KeyOf<acc_t<T>>* keys;    // [lists, capacity]
  int* counts;              // [lists]
  int64_t rows, num_points, dim, lists;
  int kept, capacity;
  KnnMetric metric;

  __device__ int64_t searched() const { return listed_count == nullptr ? rows : *listed_count; }
  __device__ int64_t row(int64_t i) const { return listed == nullptr ? i : listed[i]; }
  // Few queries share out many lists.
  __device__ int64_t splits() const {
    return knn_splits(searched(), kKnnDirectRows, num_points, kept, sizeof(keys[0]), lists);
  }
};

template <typename Key>
struct DirectShared {
  double rows[kKnnDirectRows][kDirectPitch];
  double points[kKnnDirectPoints][kDirectPitch];
  double point_squares[kKnnDirectPoints];
  double row_squares[kKnnDirectRows];
  Key thresholds[kKnnDirectRows];  // neighbours from here on are too far
  unsigned histograms[kDirectWarps][kBins];
  int64_t row_ids[kKnnDirectRows];  // -1 beyond the last
  int32_t begins[kKnnDirectRows], ends[kKnnDirectRows];
  int counts[kKnnDirectRows];
  bool crowded;  // a list has no room for another tile
};

// A block's 16 queries against 64 points after another. Eight lanes hold the partial sums of 4 x 8 pairs: lane l of
// these takes the features l, l + 8, ..., and the four such groups of a warp share the points.
template <typename T>
class DirectBlock {
  using A = acc_t<T>;
  using Key = KeyOf<A>;

 public:
  __device__ explicit DirectBlock(const DirectArgs<T>& args)
      : args_(args), shared_(shared_storage<DirectShared<Key>>()) {}

  // Queries tile * 16 up to tile * 16 + 16 of the listed ones, range `split` of the points that they may see.
  __device__ void search(int64_t tile, int64_t split, int64_t splits) {
    const int64_t searched = args_.searched();
    if (threadIdx.x < kKnnDirectRows) load_row(threadIdx.x, tile * kKnnDirectRows + threadIdx.x, searched);
    if (threadIdx.x == 0) shared_.crowded = false;
    __syncthreads();
    int64_t begin = args_.num_points, end = 0;
    for (int r = 0; r < kKnnDirectRows; ++r) {
      if (shared_.begins[r] < shared_.ends[r] && shared_.begins[r] < begin) begin = shared_.begins[r];
      if (shared_.begins[r] < shared_.ends[r] && shared_.ends[r] > end) end = shared_.ends[r];
    }
    first_list_ = tile * kKnnDirectRows * splits + split;
    splits_ = splits;
    const int64_t tiles = end <= begin ? 0 : (end - begin + kKnnDirectPoints - 1) / kKnnDirectPoints;
    for (int64_t t = tiles * split / splits; t < tiles * (split + 1) / splits; ++t) {
      measure_tile(begin + t * kKnnDirectPoints, end);
      __syncthreads();
      if (shared_.crowded) shrink(args_.capacity - kKnnDirectPoints);
    }
    shrink(args_.kept);
    if (threadIdx.x < kKnnDirectRows && shared_.row_ids[threadIdx.x] >= 0) {
      args_.counts[list(threadIdx.x)] = shared_.counts[threadIdx.x];
    }
    __syncthreads();
  }

 private:
  __device__ int64_t list(int row) const { return first_list_ + row * splits_; }

  __device__ void load_row(int r, int64_t i, int64_t searched) {
    const int64_t row = i < searched ? args_.row(i) : -1;
    shared_.row_ids[r] = row;
    shared_.begins[r] = row < 0 ? 0 : args_.begins[row];
    shared_.ends[r] = row < 0 ? 0 : args_.ends[row];
    shared_.row_squares[r] = row < 0 ? 0 : args_.squares[row];
    shared_.thresholds[r] = Key::last();
    shared_.counts[r] = 0;
  }

  // 32 features of the queries and of the points; zeros beyond the last, which add nothing.
  __device__ void stage(int64_t first_point, int64_t end, int64_t first_dim) {
    const int64_t d = first_dim + lane_id();
    for (int r = warp_id(); r < kKnnDirectRows; r += kDirectWarps) {
      const int64_t row = shared_.row_ids[r];
      const bool valid = row >= 0 && d < args_.dim;
      shared_.rows[r][lane_id()] = valid ? double{widen(args_.queries[row * args_.dim + d])} : 0.0;
    }
    for (int p = warp_id(); p < kKnnDirectPoints; p += kDirectWarps) {
      const bool valid = first_point + p < end && d < args_.dim;
      shared_.points[p][lane_id()] = valid ? double{widen(args_.points[(first_point + p) * args_.dim + d])} : 0.0;
    }
  }

  __device__ void measure_tile(int64_t first_point, int64_t end) {
    const int first_row = lane_id() / kSumLanes, first = warp_id() * kThreadPoints;
    double sums[kThreadPairs] = {}, squares[kThreadPoints] = {};
    for (int64_t first_dim = 0; first_dim == 0 || first_dim < args_.dim; first_dim += kDirectDims) {
      __syncthreads();  // every thread is done with the features before, and has seen whether lists are crowded
      stage(first_point, end, first_dim);
      __syncthreads();
      for (int d = sum_lane(); d < kDirectDims; d += kSumLanes) {
        double q[kThreadRows], x[kThreadPoints];
        for (int i = 0; i < kThreadRows; ++i) q[i] = shared_.rows[first_row + kWarpPairs * i][d];
        for (int j = 0; j < kThreadPoints; ++j) x[j] = shared_.points[first + j][d];
        if (is_euclidean(args_.metric)) {
          for (int i = 0; i < kThreadPairs; ++i) {
            const double difference = q[i / kThreadPoints] - x[i % kThreadPoints];
            sums[i] += difference * difference;
          }
        } else {
          for (int i = 0; i < kThreadPairs; ++i) sums[i] += q[i / kThreadPoints] * x[i % kThreadPoints];
          if (args_.metric == KnnMetric::kCosine && first_row == 0) {
            for (int j = 0; j < kThreadPoints; ++j) squares[j] += x[j] * x[j];
          }
        }
      }
    }
    if (args_.metric == KnnMetric::kCosine) {
      for (int j = 0; j < kThreadPoints; ++j) {
        const double square = sum_of_lanes(squares[j]);
        if (lane_id() == 0) shared_.point_squares[first + j] = square;
      }
      __syncwarp();
    }
    collect(first_point, first_row, first, sums);
  }

  // Adds the sums of two lanes, half of the pairs in one of them and half in the other.
  template <int kLanes>
  static __device__ __forceinline__ void fold(double (&sums)[kThreadPairs]) {
    constexpr int kHalf = kThreadPairs / kSumLanes * kLanes;
    const bool upper = (lane_id() & kLanes) != 0;
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const double given = upper ? sums[i] : sums[i + kHalf], kept = upper ? sums[i + kHalf] : sums[i];
      sums[i] = kept + __shfl_xor_sync(kAllLanes, given, kLanes);
    }
  }

  // Adds up the eight partial sums of each pair; each lane ends with four pairs, which are those of one row.
  __device__ void collect(int64_t first_point, int first_row, int first, double (&sums)[kThreadPairs]) {
    fold<4>(sums);
    fold<2>(sums);
    fold<1>(sums);
    const int first_pair = sum_lane() * kThreadPairs / kSumLanes;
    const int r = first_row + kWarpPairs * (first_pair / kThreadPoints);
    for (int i = 0; i < kThreadPairs / kSumLanes; ++i) {
      const int p = first + (first_pair + i) % kThreadPoints;
      const int64_t point = first_point + p;
      if (point < shared_.begins[r] || point >= shared_.ends[r]) continue;
      const double point_square = args_.metric == KnnMetric::kCosine ? shared_.point_squares[p] : 0.0;
      const double distance = distance_from_sums(args_.metric, sums[i], shared_.row_squares[r], point_square);
      const Key key = Key::make(round_distance<A>(distance), static_cast<uint32_t>(point));
      if (!(key < shared_.thresholds[r])) continue;
      const int place = atomicAdd(&shared_.counts[r], 1);
      args_.keys[list(r) * args_.capacity + place] = key;
      if (place >= args_.capacity - kKnnDirectPoints) shared_.crowded = true;
    }
  }

  // Shrinks the lists of more than `most` neighbours, one warp a list.
  __device__ void shrink(int most) {
    __syncthreads();
    for (int r = warp_id(); r < kKnnDirectRows; r += kDirectWarps) {
      const int count = shared_.counts[r];
      if (count <= most || count <= args_.kept) continue;
      const Key largest =
          keep_smallest(args_.keys + list(r) * args_.capacity, count, args_.kept, shared_.histograms[warp_id()]);
      if (lane_id() > 0) continue;
      shared_.thresholds[r] = largest;
      shared_.counts[r] = args_.kept;
    }
    __syncthreads();
    if (threadIdx.x == 0) shared_.crowded = false;
    __syncthreads();
  }

  const DirectArgs<T>& args_;
  DirectShared<Key>& shared_;
  int64_t first_list_ = 0, splits_ = 1;
};

template <typename T>
__global__ void __launch_bounds__(kDirectThreads) knn_direct_kernel(const __grid_constant__ DirectArgs<T> args) {
  const int64_t searched = args.searched();
  if (searched == 0) return;
  const int64_t tiles = (searched + kKnnDirectRows - 1) / kKnnDirectRows, splits = args.splits();
  DirectBlock<T> block(args);
  for (int64_t item = blockIdx.x; item < tiles * splits; item += gridDim.x)
    block.search(item % tiles, item / tiles, splits);
}

}  // namespace
}  // namespace mdprop
