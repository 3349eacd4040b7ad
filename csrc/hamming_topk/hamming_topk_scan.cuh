// The scan of hamming_topk on a card: for a tile of queries and a split of the codes, the nearest codes as keys.
#pragma once

#include "common/device.cuh"
#include "hamming_topk/hamming_topk.h"
#include "hamming_topk/hamming_topk_keys.cuh"
#include "hamming_topk/hamming_topk_plan.h"
#include "hamming_topk/hamming_topk_tile.cuh"

namespace mdprop {
namespace {

// One launch: the neighbours first_neighbour .. first_neighbour + pass_k - 1 of a chunk of queries.
struct HammingTopkLaunch {
  HammingTopkArgs<uint64_t> args;
  HammingTopkPlan plan;
  int64_t first_query, last_query;  // the chunk [first_query, last_query)
  int64_t first_neighbour;
  const int64_t* items;  // [G + 1], of work before each group; nullptr without groups
  uint64_t* partial;     // [chunk_queries, splits, pass_k], kNoKey where there are fewer
  uint64_t* candidates;  // [blocks, kTileQueries, capacity]
};

// The rows of a group, as far as they belong to the chunk.
struct GroupRows {
  int64_t first_query, last_query, first_code, last_code;

  __device__ __forceinline__ int64_t tiles() const { return count_pieces(last_query - first_query, kTileQueries); }
  __device__ __forceinline__ int64_t splits(const HammingTopkPlan& plan) const {
    return count_pieces(last_code - first_code, plan.split_codes);
  }
};

__device__ __forceinline__ GroupRows group_rows(const HammingTopkLaunch& launch, int64_t group) {
  const auto& args = launch.args;
  if (args.query_offsets == nullptr) return {launch.first_query, launch.last_query, 0, args.num_codes};
  const auto clip = [&](int64_t row) { return max(launch.first_query, min(row, launch.last_query)); };
  return {clip(args.query_offsets[group]), clip(args.query_offsets[group + 1]), args.point_offsets[group],
          args.point_offsets[group + 1]};
}

// The last of `count` groups that begins at or before `position`, by offsets [count + 1]: the one that holds it.
__device__ __forceinline__ int64_t find_group(const int64_t* offsets, int64_t count, int64_t position) {
  int64_t first = 0, last = count;
  while (last - first > 1) {
    const int64_t middle = first + (last - first) / 2;
    (offsets[middle] <= position ? first : last) = middle;
  }
  return first;
}

// A tile of queries of one group and a split of its codes.
struct ScanItem {
  int64_t first_query, first_code, last_code, split;
  int num_queries;
};

// Tiles of one split follow each other, so that blocks that run together read the same codes.
__device__ __forceinline__ ScanItem find_item(const HammingTopkLaunch& launch, int64_t item) {
  int64_t group = 0;
  if (launch.items != nullptr) {
    group = find_group(launch.items, launch.args.num_groups, item);
    item -= launch.items[group];
  }
  const GroupRows rows = group_rows(launch, group);
  const int64_t split = item / rows.tiles(), first_query = rows.first_query + item % rows.tiles() * kTileQueries;
  const int64_t first_code = rows.first_code + split * launch.plan.split_codes;
  return {first_query, first_code, min(first_code + launch.plan.split_codes, rows.last_code), split,
          static_cast<int>(min(int64_t{kTileQueries}, rows.last_query - first_query))};
}

struct ScanSpace {
  ScanItem item;
  int counts[kTileQueries];           // of candidates
  int thresholds[kTileQueries];       // a code has to be nearer than that
  uint64_t first_keys[kTileQueries];  // and its key not less: what lies before was found by an earlier pass
  SelectSpace select[kTileThreads / kWarpSize];
};

// One block's work on an item: appends what is nearer than a query's threshold to the query's candidates, in any order,
// and drops all but the nearest of them before they could overflow. Codes come in increasing order of index, round by
// round, so a tie with the last of k candidates is lost.
template <int kWords, bool kOneUnit>
class Scan {
 public:
  __device__ Scan(const HammingTopkLaunch& launch, ScanSpace& space)
      : launch_(launch),
        space_(space),
        candidates_(launch.candidates + int64_t{blockIdx.x} * kTileQueries * launch.plan.capacity) {}

  // Every thread of the block calls it with the same item.
  __device__ void run(int64_t index) {
    __syncthreads();  // the item before is done with the shared memory
    if (threadIdx.x == 0) space_.item = find_item(launch_, index);
    __syncthreads();
    if (threadIdx.x < kTileQueries) begin(static_cast<int>(threadIdx.x));
    __syncthreads();
    const auto& args = launch_.args;
    const ScanItem item = space_.item;
    const int words = static_cast<int>(word_count(args.bits));
    const QueryRows queries{args.queries + item.first_query * words, words, last_word_mask(args.bits),
                            item.num_queries};
    CodeTile<kWords, kOneUnit> tile;
    for (int64_t first = tile.first_round(args.codes, item.first_code); first < item.last_code; first += kRoundCodes) {
      const CodeRows codes{args.codes + first * words, words,
                           static_cast<int>(max(int64_t{0}, item.first_code - first)),
                           static_cast<int>(min(int64_t{kRoundCodes}, item.last_code - first))};
      if constexpr (kOneUnit) tile.load(codes, 0);
      for (int query = 0; query < queries.count; query += kRegisterQueries) {
        compare(tile, codes, first, queries, query);
      }
      __syncthreads();
      select(launch_.plan.capacity - kRoundCodes);
      __syncthreads();
    }
    select(launch_.plan.pass_k);
    write();
  }

 private:
  __device__ uint64_t key(int64_t distance, int64_t index) const {
    return static_cast<uint64_t>(distance) << launch_.plan.index_bits | static_cast<uint64_t>(index);
  }

  // A pass goes on where the one before ended, which may have found the last neighbour already. To a query beyond the
  // tile no code is near.
  __device__ void begin(int query) {
    uint64_t first_key = query < space_.item.num_queries ? 0 : kNoKey;
    if (launch_.first_neighbour > 0 && first_key == 0) {
      const int64_t last = (space_.item.first_query + query) * launch_.args.k + launch_.first_neighbour - 1;
      const int64_t index = launch_.args.indices[last];
      first_key = index == kNoIndex ? kNoKey : key(launch_.args.distances[last], index) + 1;
    }
    space_.counts[query] = 0;
    space_.first_keys[query] = first_key;
    space_.thresholds[query] = first_key == kNoKey ? 0 : static_cast<int>(launch_.args.bits) + 1;
  }

  __device__ __forceinline__ void compare(CodeTile<kWords, kOneUnit>& tile, const CodeRows& codes, int64_t first,
                                          const QueryRows& queries, int query) {
    int distances[kRegisterQueries][kThreadCodes] = {};
    add_distances(tile, codes, queries, query, distances);
    int any = 0;  // negative if a code is nearer than a threshold
#pragma unroll
    for (int i = 0; i < kRegisterQueries; ++i) {
      const int threshold = space_.thresholds[query + i];
#pragma unroll
      for (int code = 0; code < kThreadCodes; ++code) any |= distances[i][code] - threshold;
    }
    if (any >= 0) return;
    unsigned near = 0;  // by bit kThreadCodes * query + code
#pragma unroll
    for (int pair = 0; pair < kRegisterQueries * kThreadCodes; ++pair) {
      const int i = pair / kThreadCodes;
      near |= distances[i][pair % kThreadCodes] < space_.thresholds[query + i] ? 1u << pair : 0u;
    }
    // Counting anew takes less than registers that wait for what seldom happens.
    for (; near != 0; near &= near - 1) {
      const int pair = __ffs(static_cast<int>(near)) - 1, row = tile.row(pair % kThreadCodes);
      if (codes.holds(row)) append(codes, row, first, queries, query + pair / kThreadCodes);
    }
  }

  __device__ void append(const CodeRows& codes, int row, int64_t first, const QueryRows& queries, int query) {
    const int distance = code_distance(queries.queries + query * queries.words,
                                       codes.codes + int64_t{row} * codes.words, codes.words, queries.last_mask);
    const uint64_t found = key(distance, first + row);
    if (found < space_.first_keys[query]) return;
    const int place = atomicAdd(&space_.counts[query], 1);
    candidates_[int64_t{query} * launch_.plan.capacity + place] = found;
  }

  // Where a query has more than `most` candidates, keeps the nearest k. A warp takes every eighth query.
  __device__ void select(int most) {
    for (int query = warp_id(); query < space_.item.num_queries; query += kTileThreads / kWarpSize) {
      const int count = space_.counts[query];
      if (count <= most) continue;
      uint64_t* keys = candidates_ + int64_t{query} * launch_.plan.capacity;
      const uint64_t pivot =
          select_pivot<kWarpSize>(keys, count, launch_.plan.pass_k, launch_.plan.key_bits, space_.select[warp_id()]);
      int kept = 0;
      uint64_t farthest = 0;
      for (int start = 0; start < count; start += kWarpSize) {
        const int i = start + lane_id();
        const uint64_t candidate = i < count ? keys[i] : kNoKey;
        const uint32_t votes = __ballot_sync(kAllLanes, candidate <= pivot);
        if (candidate <= pivot) {
          keys[kept + __popc(votes & ((1u << lane_id()) - 1))] = candidate;  // not beyond what the warp has read
          farthest = max(farthest, candidate);
        }
        kept += __popc(votes);
      }
      for (int lanes = kWarpSize / 2; lanes > 0; lanes /= 2) {
        farthest = max(farthest, __shfl_xor_sync(kAllLanes, farthest, lanes));
      }
      if (lane_id() == 0) {
        space_.counts[query] = kept;
        space_.thresholds[query] = static_cast<int>(farthest >> launch_.plan.index_bits);
      }
      __syncwarp();
    }
  }

  // The warp that selected a query's candidates writes them.
  __device__ void write() {
    const auto& plan = launch_.plan;
    for (int query = warp_id(); query < space_.item.num_queries; query += kTileThreads / kWarpSize) {
      const int64_t row = (space_.item.first_query - launch_.first_query + query) * plan.splits + space_.item.split;
      const uint64_t* keys = candidates_ + int64_t{query} * plan.capacity;
      for (int i = lane_id(); i < plan.pass_k; i += kWarpSize) {
        launch_.partial[row * plan.pass_k + i] = i < space_.counts[query] ? keys[i] : kNoKey;
      }
    }
  }

  const HammingTopkLaunch& launch_;
  ScanSpace& space_;
  uint64_t* candidates_;  // [kTileQueries, capacity], of this block
};

}  // namespace
}  // namespace mdprop
