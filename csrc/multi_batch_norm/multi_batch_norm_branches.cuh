// The first kernel of every call: which sample belongs to which branch, found out where the ids are.
#pragma once

#include "common/device.cuh"
#include "multi_batch_norm/multi_batch_norm_plan.h"

MDPROP_ISA_BEGIN

// Sizes that the host knows, as a parameter of the kernel.
struct GivenSizes {
  int64_t sizes[kGivenSizes];
};

struct BranchesShared {
  int64_t below[kNormThreads / kWarpSize];
  int64_t own[kNormThreads / kWarpSize];
};

// The sums over the block of two numbers of each thread, for every thread.
__device__ inline void block_totals(int64_t& below, int64_t& own, BranchesShared& shared) {
  below = warp_sum(below);
  own = warp_sum(own);
  __syncthreads();
  if (lane_id() == 0) {
    shared.below[warp_id()] = below;
    shared.own[warp_id()] = own;
  }
  __syncthreads();
  below = own = 0;
  for (int warp = 0; warp < kNormThreads / kWarpSize; ++warp) {
    below += shared.below[warp];
    own += shared.own[warp];
  }
}

// Writes the samples whose id is `branch` to `order`, in their order: a tile of the ids at a time, each thread with
// one.
__device__ inline void collect_members(const int64_t* ids, int64_t samples, int64_t branch, int64_t* order,
                                       BranchesShared& shared) {
  for (int64_t base = 0; base < samples; base += kNormThreads) {
    const int64_t n = base + threadIdx.x;
    const bool member = n < samples && ids[n] == branch;
    const unsigned votes = __ballot_sync(kAllLanes, member);
    __syncthreads();
    if (lane_id() == 0) shared.own[warp_id()] = __popc(votes);
    __syncthreads();
    int64_t before = 0;
    for (int warp = 0; warp < kNormThreads / kWarpSize; ++warp) {
      if (warp == warp_id() && member) order[before + __popc(votes & ((1u << lane_id()) - 1))] = n;
      before += shared.own[warp];
    }
    order += before;
  }
}

// A block a branch. The samples of the branches below it give its offset, so blocks need not wait for each other; then
// it writes its part of the order and its count of values (if wanted).
__global__ void __launch_bounds__(kNormThreads)
    norm_branches_kernel(const __grid_constant__ MultiBatchNormShape shape, const __grid_constant__ GivenSizes given,
                         int64_t* count) {
  auto& shared = shared_storage<BranchesShared>();
  const int64_t branch = blockIdx.x;
  int64_t below = 0, own = 0;
  if (shape.ids != nullptr) {
    for (int64_t n = threadIdx.x; n < shape.samples; n += kNormThreads) {
      const int64_t id = shape.ids[n];
      device_check(id >= 0 && id < shape.branches, "branch: ids must be in [0, B)");
      below += id < branch;
      own += id == branch;
    }
    block_totals(below, own, shared);
    collect_members(shape.ids, shape.samples, branch, shape.order + below, shared);
  } else {
    const int64_t* sizes = shape.host_sizes != nullptr ? given.sizes : shape.sizes;
    if (sizes != nullptr) {
      int64_t total = 0;
      for (int64_t b = threadIdx.x; b < shape.branches; b += kNormThreads) {
        const int64_t size = sizes[b];
        device_check(size >= 0 && size <= shape.samples, "branch: sizes must be >= 0 and add up to N");
        if (b < branch) below += size;
        total += size;
      }
      block_totals(below, total, shared);
      device_check(total == shape.samples, "branch: sizes must be >= 0 and add up to N");
      own = sizes[branch];
    } else {
      below = shape.one_each ? branch : branch == 0 ? 0 : shape.samples;
      own = shape.one_each ? 1 : branch == 0 ? shape.samples : 0;
    }
    for (int64_t n = threadIdx.x; n < own; n += kNormThreads) shape.order[below + n] = below + n;
  }
  if (threadIdx.x == 0) {
    shape.offsets[branch] = below;
    if (branch == shape.branches - 1) shape.offsets[shape.branches] = shape.samples;
    if (count != nullptr) count[branch] = own * shape.spatial;
  }
}

MDPROP_ISA_END
