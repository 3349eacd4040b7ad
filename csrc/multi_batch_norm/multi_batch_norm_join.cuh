// What the chunks of a branch have left is joined by a kernel of its own: one block at the end of the first kernel
// would read it all alone, while the others wait.
#pragma once

#include "multi_batch_norm/multi_batch_norm_walk.cuh"

MDPROP_ISA_BEGIN

constexpr int kJoinChannels = 16;                        // of a block, whose parts lie side by side
constexpr int kJoinRows = kNormThreads / kJoinChannels;  // chunks that it reads at once
constexpr int kJoinBlocks = 2;                           // of a multiprocessor, at least: room for many loads under way

struct JoinShared {
  Sums table[kNormThreads / kWarpSize][kJoinChannels];
};

// Which parts a thread joins: rows row, row + kJoinRows, ... of the chunks of its channel.
struct JoinPlace {
  int branch;
  int64_t channel;
  int first;   // the number of the branch's first chunk among all
  int chunks;  // of the branch
  bool valid;  // whether there is such a channel
  bool owner;  // of the joined result
};

inline int64_t join_blocks(const MultiBatchNormShape& shape) {
  return shape.branches * divide_up(shape.channels, kJoinChannels);
}

// The chunks of the branches below `branch`.
__device__ inline int chunks_before(const MultiBatchNormShape& shape, const MultiBatchNormPlan& plan, int branch) {
  if (shape.one_each) return branch * chunks_of(shape, plan, 0);
  int chunks = 0;
  for (int below = lane_id(); below < branch; below += kWarpSize) chunks += chunks_of(shape, plan, below);
  return warp_sum(chunks);
}

__device__ inline JoinPlace join_place(const MultiBatchNormShape& shape, const MultiBatchNormPlan& plan) {
  const auto groups = static_cast<unsigned>((shape.channels + kJoinChannels - 1) / kJoinChannels);
  const int branch = static_cast<int>(blockIdx.x / groups), thread = static_cast<int>(threadIdx.x);
  const int64_t channel = int64_t{blockIdx.x % groups} * kJoinChannels + thread % kJoinChannels;
  const bool valid = channel < shape.channels;
  return {branch,
          channel,
          chunks_before(shape, plan, branch),
          chunks_of(shape, plan, branch),
          valid,
          valid && thread < kJoinChannels};
}

// The sum of term(chunk) over the chunks of a place, for its owner. Rows are added up in a fixed order.
template <typename Term>
__device__ Sums join_chunks(const JoinPlace& place, const Term& term) {
  auto& shared = shared_storage<JoinShared>();
  const int thread = static_cast<int>(threadIdx.x), column = thread % kJoinChannels;
  Sums total{0, 0};
  if (place.valid) {
#pragma unroll 8
    for (int chunk = thread / kJoinChannels; chunk < place.chunks; chunk += kJoinRows) total = total + term(chunk);
  }
  for (int lanes = kWarpSize / 2; lanes >= kJoinChannels; lanes /= 2) {
    total.first += __shfl_down_sync(kAllLanes, total.first, lanes);
    total.second += __shfl_down_sync(kAllLanes, total.second, lanes);
  }
  if (lane_id() < kJoinChannels) shared.table[warp_id()][column] = total;
  __syncthreads();
  if (!place.owner) return total;
  for (int warp = 1; warp < kNormThreads / kWarpSize; ++warp) total = total + shared.table[warp][column];
  return total;
}

MDPROP_ISA_END
