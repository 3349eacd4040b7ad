// How a search is cut for the card, and where everything lies in its scratch memory. By the shapes alone: results do
// not depend on it, but a second call should take the same way.
#pragma once

#include <algorithm>
#include <cstdint>

#include "knn_topk/knn_topk_math.h"

namespace mdprop {

constexpr int kKnnDirectRows = 16;      // queries that a block of the direct search holds
constexpr int kKnnDirectPoints = 64;    // points of one of its tiles
constexpr int kKnnFilterRows = 64;      // queries that a block of the filter holds; twice as many of many queries
constexpr int kKnnFilterPoints = 128;   // points of one of its tiles
constexpr int kKnnSortedBytes = 32768;  // neighbours that are sorted in shared memory
constexpr int64_t kKnnBlocks = 512;     // blocks that fill any card about twice
constexpr int64_t kKnnPlaces = 264;     // blocks of the filter that 132 multiprocessors hold at once
constexpr int64_t kKnnMaxFilterDim = 1 << 14;  // the bound of the filter holds up to here, and is useful
constexpr int64_t kKnnDirectSteps = 1 << 21;   // below so many fp64 terms the filter's launches cost more

struct KnnCudaPlan {
  bool direct;           // measure every pair; else the filter finds candidates first
  int64_t k;             // at most num_points
  int64_t kept;          // neighbours or candidates that remain of a list
  int64_t capacity;      // of a list, before it must shrink
  int64_t splits;        // ranges of points with lists of their own
  int64_t rows;          // queries at a time
  int64_t block_rows;    // of them, those of one block
  int64_t padded_dim;    // of a row in bf16: whole products of 16
  int64_t chunk_points;  // points at a time that are held in bf16: whole tiles
};

inline int64_t knn_round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// The most ranges that points are cut into: each is worth a block, and merging its `kept` neighbours fits the shared
// memory; a few are merged in any case.
MDPROP_HOST_DEVICE int64_t knn_most_splits(int64_t num_points, int64_t kept, int64_t key_bytes) {
  const int64_t sorted = kKnnSortedBytes / (kept * key_bytes), most = sorted > 32 ? sorted : 32;
  return num_points < 2048 ? 1 : num_points / 1024 < most ? num_points / 1024 : most;
}

// How many ranges, where `lists` lists of `kept` neighbours are at hand.
MDPROP_HOST_DEVICE int64_t knn_splits(int64_t rows, int64_t rows_per_block, int64_t num_points, int64_t kept,
                                      int64_t key_bytes, int64_t lists) {
  const int64_t row_blocks = (rows + rows_per_block - 1) / rows_per_block;
  const int64_t most = knn_most_splits(num_points, kept, key_bytes),
                wanted = (kKnnBlocks + row_blocks - 1) / row_blocks;
  const int64_t splits = wanted < most ? wanted : most, fitting = lists / rows;
  return fitting < 1 ? 1 : splits < fitting ? splits : fitting;
}

// The same for blocks that all take equally long, and so come in waves: the fewest ranges that leave at most a
// twentieth of the last wave's places empty, else those that leave the least.
inline int64_t knn_filter_splits(int64_t row_blocks, int64_t most) {
  int64_t best = 1;
  double best_share = 0;
  for (int64_t splits = 1; splits <= most && best_share < 0.95; ++splits) {
    const int64_t blocks = row_blocks * splits, places = knn_round_up(blocks, kKnnPlaces);
    const double share = static_cast<double>(blocks) / static_cast<double>(places);
    if (share > best_share) best = splits, best_share = share;
  }
  return best;
}

template <typename T>
KnnCudaPlan knn_cuda_plan(const KnnTopkArgs<T>& args) {
  constexpr bool kDouble = sizeof(T) == sizeof(double);
  constexpr int64_t kKeyBytes = kDouble ? 16 : 8;
  const int64_t num_queries = std::max<int64_t>(args.num_queries, 1), num_points = args.num_points, dim = args.dim;
  KnnCudaPlan plan;
  const double steps = static_cast<double>(num_queries) * static_cast<double>(num_points) * static_cast<double>(dim);
  plan.direct = kDouble || dim > kKnnMaxFilterDim || steps < kKnnDirectSteps;
  plan.k = std::max<int64_t>(std::min(args.k, num_points), 1);
  // Candidates beyond k make room for the filter's error: where more than these lie within it, the certificate fails.
  plan.kept = plan.direct ? plan.k : plan.k + std::max<int64_t>(22, plan.k / 4);
  const int64_t tile = plan.direct ? kKnnDirectPoints : kKnnFilterPoints;
  plan.capacity = plan.kept + tile + std::max<int64_t>(64, plan.kept / 2);
  const int64_t most_lists = args.list_bytes / (plan.capacity * kKeyBytes);
  // More queries a block read the points less often. But a block of two groups' queries reads the points of both, and
  // long lists leave room for few blocks.
  const bool wide = num_queries >= 1024 && args.query_offsets == nullptr && most_lists >= 1 << 15;
  plan.block_rows = plan.direct ? kKnnDirectRows : kKnnFilterRows * (wide ? 2 : 1);
  plan.padded_dim = knn_round_up(std::max<int64_t>(dim, 1), 16);
  const int64_t row_bytes = plan.padded_dim * 2;
  const int64_t fitting_rows = std::min(most_lists, plan.direct ? most_lists : args.packed_bytes / row_bytes);
  const int64_t most_rows = std::max(fitting_rows / plan.block_rows, int64_t{1}) * plan.block_rows;
  const int64_t chunks = (num_queries + most_rows - 1) / most_rows;  // all of about one size
  plan.rows = knn_round_up((num_queries + chunks - 1) / chunks, plan.block_rows);
  if (plan.direct) {
    plan.splits = knn_splits(plan.rows, plan.block_rows, num_points, plan.kept, kKeyBytes, most_lists);
  } else {
    const int64_t most = std::min(knn_most_splits(num_points, plan.kept, kKeyBytes), most_lists / plan.rows);
    plan.splits = knn_filter_splits(plan.rows / plan.block_rows, std::max<int64_t>(most, 1));
  }
  const int64_t fitting = args.packed_bytes / row_bytes / kKnnFilterPoints * kKnnFilterPoints;
  plan.chunk_points =
      std::min(std::max<int64_t>(fitting, kKnnFilterPoints), knn_round_up(num_points, kKnnFilterPoints));
  return plan;
}

// The pieces of the scratch memory; those of the filter are null in a direct search.
struct KnnCudaBuffers {
  int32_t* row_begins;     // [rows] the points of each query's group
  int32_t* row_ends;       // [rows]
  double* squares;         // [rows] |q|^2, for the euclidean metrics |q - centre|^2
  void* keys;              // [rows * splits, capacity]
  int* counts;             // [rows * splits] neighbours in each list
  float* thresholds;       // [rows * splits] what the filter dropped is bounded by this
  int* failed;             // [rows] whether the certificate failed
  int* listed;             // [rows] the queries where it did
  int* listed_count;       // [1]
  float* centre;           // [D]
  float* query_bounds;     // [2, rows]
  BFloat16* query_values;  // [rows, padded_dim]
  float* point_bounds;     // [3, chunk_points]
  BFloat16* point_values;  // [chunk_points, padded_dim]
  int64_t bytes;           // of all of them
};

// Cuts pieces off scratch memory; off none, to learn how much is wanted, where base is null.
struct KnnCarver {
  void* base;
  int64_t offset = 0;

  template <typename Value>
  Value* take(int64_t count) {
    const int64_t start = offset;
    offset += knn_round_up(count * static_cast<int64_t>(sizeof(Value)), 256);
    return base == nullptr || count == 0 ? nullptr : reinterpret_cast<Value*>(static_cast<char*>(base) + start);
  }
};

inline KnnCudaBuffers knn_cuda_buffers(const KnnCudaPlan& plan, int64_t dim, bool is_double, void* base) {
  KnnCarver carver{base};
  const int64_t lists = plan.rows * plan.splits, filter = plan.direct ? 0 : 1;
  KnnCudaBuffers buffers = {};
  buffers.row_begins = carver.take<int32_t>(plan.rows);
  buffers.row_ends = carver.take<int32_t>(plan.rows);
  buffers.squares = carver.take<double>(plan.rows);
  buffers.keys = carver.take<char>(lists * plan.capacity * (is_double ? 16 : 8));
  buffers.counts = carver.take<int>(lists);
  buffers.thresholds = carver.take<float>(filter * lists);
  buffers.failed = carver.take<int>(filter * plan.rows);
  buffers.listed = carver.take<int>(filter * plan.rows);
  buffers.listed_count = carver.take<int>(filter);
  buffers.centre = carver.take<float>(filter * dim);
  buffers.query_bounds = carver.take<float>(filter * 2 * plan.rows);
  buffers.query_values = carver.take<BFloat16>(filter * plan.rows * plan.padded_dim);
  buffers.point_bounds = carver.take<float>(filter * 3 * plan.chunk_points);
  buffers.point_values = carver.take<BFloat16>(filter * plan.chunk_points * plan.padded_dim);
  buffers.bytes = carver.offset;
  return buffers;
}

// Bytes of scratch memory that args.workspace must hold on the card.
template <typename T>
int64_t knn_topk_workspace(const KnnTopkArgs<T>& args) {
  return knn_cuda_buffers(knn_cuda_plan(args), args.dim, sizeof(T) == sizeof(double), nullptr).bytes;
}

// The scratch memory of the gradient.
struct KnnBackwardSpace {
  PairWeights* weights;  // [Q, k]; unset for padding
  int64_t* filed;        // [Q, k] pairs by point, padding left out
  int64_t* starts;       // [N + 2] where the pairs of a point begin
  int64_t bytes;         // of all of them
};

template <typename T>
KnnBackwardSpace knn_backward_space(const KnnTopkBackwardArgs<T>& args, void* base) {
  const int64_t pairs = args.num_queries * args.k;
  KnnCarver carver{base};
  KnnBackwardSpace space;
  space.weights = carver.take<PairWeights>(pairs);
  space.filed = carver.take<int64_t>(pairs);
  space.starts = carver.take<int64_t>(args.num_points + 2);
  space.bytes = carver.offset;
  return space;
}

template <typename T>
int64_t knn_topk_backward_workspace(const KnnTopkBackwardArgs<T>& args) {
  return knn_backward_space(args, nullptr).bytes;
}

}  // namespace mdprop
