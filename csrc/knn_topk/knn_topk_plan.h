// How the CPU search is cut into tasks: by the shapes alone, so that results cannot depend on the number of threads.
#pragma once

#include <cstdint>

#include "knn_topk/knn_topk_filter.h"

MDPROP_ISA_BEGIN

inline int64_t at_most(int64_t value, int64_t limit) { return value < limit ? value : limit; }
inline int64_t at_least(int64_t value, int64_t limit) { return value > limit ? value : limit; }
inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr int64_t kTaskSteps = 1 << 17;            // multiply-adds worth a thread
constexpr int64_t kListBytes = int64_t{1} << 26;   // memory for candidate lists, or one panel's where k needs more
constexpr int64_t kPanelBytes = int64_t{1} << 26;  // memory for packed queries, or one panel's where D needs more
constexpr int64_t kBlockValues = 1 << 18;          // packed values in flight: they stay in the second-level cache

template <typename A>
struct Plan {
  explicit Plan(int64_t num_queries, int64_t num_points, int64_t dim, int64_t wanted) {
    using B = Block<A>;
    k = at_most(wanted, num_points);
    // Twice k, so that each pruning frees as many places as it keeps; a tile more, so that one always fits.
    capacity = at_most(2 * k + 128, num_points) + B::kPoints;
    tiles = divide_up(num_points, B::kPoints);
    // Few queries: ranges of points in parallel, each with candidates of its own. Otherwise all threads pack a block of
    // points and then share it.
    const int64_t smallest_range = at_least(8192, 16 * capacity);
    const int64_t list_bytes = B::kRows * capacity * static_cast<int64_t>(2 * sizeof(A) + sizeof(int32_t));
    const int64_t most_ranges = at_most(kListBytes / list_bytes, 64);
    direct = num_queries <= kDirectQueries || dim > FilterBound<A>::kMaxFilterDim;
    ranges = num_queries <= kFewQueries ? at_least(at_most(num_points / smallest_range, most_ranges), 1) : 1;
    block_tiles = at_most(at_least(kBlockValues / (at_least(dim, 16) * B::kPoints), 4), at_least(tiles, 1));
    const int64_t panel_bytes = B::kRows * at_least(dim, 1) * static_cast<int64_t>(sizeof(A));
    const int64_t fitting = at_most(kListBytes / (ranges * list_bytes), kPanelBytes / panel_bytes);
    panels = at_most(at_least(at_most(fitting, 16384 / B::kRows), 1), divide_up(num_queries, B::kRows));
  }

  static constexpr int64_t kFewQueries = 96;
  // Packing a point for the filter costs as much as two or three exact distances.
  static constexpr int64_t kDirectQueries = 2;
  bool direct;
  int64_t k, capacity, tiles, ranges, block_tiles, panels;
};

MDPROP_ISA_END
