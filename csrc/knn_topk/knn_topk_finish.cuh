// The end of a search: the lists of each query become its sorted neighbours, and a certificate says whether the filter
// can have dropped one of them.
#pragma once

#include "knn_topk/knn_topk_cuda_plan.h"
#include "knn_topk/knn_topk_select.cuh"

namespace mdprop {
namespace {

constexpr int kFinishThreads = 256;

template <typename Key>
struct FinishArgs {
  Key* keys;                // [lists, capacity] measured neighbours
  const int* counts;        // [lists]
  const int* listed;        // [rows] the queries whose lists these are, or null for all in order
  const int* listed_count;  // [1], or null
  const int32_t* begins;    // [rows]
  const int32_t* ends;      // [rows]
  const double* squares;    // [rows]
  const float* thresholds;  // [lists] scores of dropped candidates are at least this; null where nothing was dropped
  int* failed;              // [rows] whether the certificate fails; null without thresholds
  typename Key::Distance* distances;  // of the chunk: [rows, k]
  int64_t* indices;                   // [rows, k]
  int64_t rows, num_points, dim, lists;
  int kept, capacity, k;
  KnnMetric metric;

  __device__ int64_t searched() const { return listed_count == nullptr ? rows : *listed_count; }
};

// At most the rounded distance of any point whose score is `score` or more. The scores are real numbers
// (knn_topk_pack.cuh); from there on fp64 rounds, by D / 8 + 12 units of 2^-53 at most, so that 2^-50 (D + 64) is
// ample.
template <typename A>
__device__ A least_distance(KnnMetric metric, double score, double query_square, int64_t dim) {
  const double relative = 0x1p-50 * static_cast<double>(dim + 64);
  double distance;
  if (is_euclidean(metric)) {
    const double square = query_square * (1 - relative) + 2 * score;
    distance = square > 0 ? square * (1 - relative) : 0;
    if (metric == KnnMetric::kEuclidean) distance = sqrt(distance) * (1 - 0x1p-50);
  } else if (metric == KnnMetric::kCosine) {
    distance = 1 + score - relative;
    distance = distance > 2 ? 2 : distance;
  } else {
    distance = score * sqrt(query_square);
    distance *= distance > 0 ? 1 - relative : 1 + relative;
  }
  return round_distance<A>(distance);
}

// One block a query at a time.
template <typename Key>
class FinishBlock {
  using A = typename Key::Distance;
  static constexpr int kSorted = kKnnSortedBytes / sizeof(Key);

  struct Shared {
    Key sorted[kSorted];
  };

 public:
  __device__ FinishBlock(const FinishArgs<Key>& args, int64_t splits)
      : args_(args), shared_(shared_storage<Shared>()), splits_(splits) {}

  __device__ void finish(int64_t item) {
    const int64_t row = args_.listed == nullptr ? item : args_.listed[item];
    int total = 0;
    for (int64_t split = 0; split < splits_; ++split) total += args_.counts[item * splits_ + split];
    Key* keys = total <= kSorted ? shared_.sorted : args_.keys + item * splits_ * args_.capacity;
    gather(item, keys);
    sort_block(keys, total);
    const int64_t size = args_.ends[row] - args_.begins[row];
    const int found = static_cast<int>(size < args_.k ? size : args_.k);
    for (int i = threadIdx.x; i < args_.k; i += kFinishThreads) {
      const bool real = i < found && i < total;
      args_.distances[row * args_.k + i] = real ? keys[i].distance() : static_cast<A>(kInfinity);
      args_.indices[row * args_.k + i] = real ? int64_t{keys[i].index()} : kNoNeighbour;
    }
    if (threadIdx.x == 0 && args_.failed != nullptr) args_.failed[row] = !certain(item, row, keys, found, total, size);
    __syncthreads();
  }

 private:
  // Moves the lists behind one another, in order; in place the target never lies behind the source.
  __device__ void gather(int64_t item, Key* to) {
    const Key* from = args_.keys + item * splits_ * args_.capacity;
    int done = 0;
    for (int64_t split = 0; split < splits_; ++split, from += args_.capacity) {
      const int count = args_.counts[item * splits_ + split];
      for (int first = 0; first < count; first += kFinishThreads) {
        const int i = first + static_cast<int>(threadIdx.x);
        const Key key = i < count ? from[i] : Key::last();
        __syncthreads();
        if (i < count) to[done + i] = key;
        __syncthreads();
      }
      done += count;
    }
    __syncthreads();
  }

  // Whether the neighbours found are nearer than all that was dropped.
  __device__ bool certain(int64_t item, int64_t row, const Key* keys, int found, int total, int64_t size) const {
    if (total == size) return true;
    if (total < found) return false;
    float threshold = kInfinity;
    for (int64_t split = 0; split < splits_; ++split) {
      const float other = args_.thresholds[item * splits_ + split];
      threshold = other < threshold ? other : threshold;
    }
    return keys[found - 1].distance() < least_distance<A>(args_.metric, threshold, args_.squares[row], args_.dim);
  }

  const FinishArgs<Key>& args_;
  Shared& shared_;
  const int64_t splits_;
};

template <typename Key>
__global__ void __launch_bounds__(kFinishThreads)
    knn_finish_kernel(const __grid_constant__ FinishArgs<Key> args, int splits) {
  const int64_t searched = args.searched();
  if (searched == 0) return;
  // Without a given number the lists are those of a direct search.
  const int64_t lists_each =
      splits > 0 ? splits : knn_splits(searched, kKnnDirectRows, args.num_points, args.kept, sizeof(Key), args.lists);
  FinishBlock<Key> block(args, lists_each);
  for (int64_t item = blockIdx.x; item < searched; item += gridDim.x) block.finish(item);
}

constexpr int kListThreads = 1024;

// Lists the queries whose certificate failed, in order. One block.
__global__ void __launch_bounds__(kListThreads)
    knn_list_failed_kernel(const int* failed, int rows, int* listed, int* count) {
  struct Shared {
    int before[kListThreads / kWarpSize];
    int total;
  };
  auto& shared = shared_storage<Shared>();
  int done = 0;
  for (int first = 0; first < rows; first += kListThreads) {
    const int row = first + static_cast<int>(threadIdx.x);
    const bool fails = row < rows && failed[row] != 0;
    const uint32_t votes = __ballot_sync(kAllLanes, fails);
    if (lane_id() == 0) shared.before[warp_id()] = __popc(votes);
    __syncthreads();
    if (threadIdx.x == 0) {
      shared.total = 0;
      for (int& before : shared.before) {
        const int own = before;
        before = shared.total;
        shared.total += own;
      }
    }
    __syncthreads();
    if (fails) listed[done + shared.before[warp_id()] + __popc(votes & ((1u << lane_id()) - 1))] = row;
    done += shared.total;
    __syncthreads();
  }
  if (threadIdx.x == 0) *count = done;
}

}  // namespace
}  // namespace mdprop
