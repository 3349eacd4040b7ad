// Sums over a sample by one block or by a team of blocks, in an order fixed by the position of the values.
#pragma once

#include <cstdint>

#include "common/cluster.cuh"
#include "common/device.cuh"
#include "pgd_step/pgd_step_plan.h"

MDPROP_ISA_BEGIN

// Several quantities that are summed up together; counts are exact in fp64.
template <int kFields>
struct Sums {
  static_assert(kFields <= kMaxFields, "the scratch memory holds kMaxFields");
  double values[kFields];

  __device__ void operator+=(const Sums& other) {
    for (int f = 0; f < kFields; ++f) values[f] += other.values[f];
  }
  __device__ double operator[](int f) const { return values[f]; }
};

// Two sets, used in turn: while one sum is still read, the next one is written.
struct WarpSums {
  double values[2][32][kMaxFields];
};

// Sums over the threads of a block.
class BlockSum {
 public:
  template <int kFields>
  __device__ Sums<kFields> operator()(Sums<kFields> own) {
    auto& shared = shared_storage<WarpSums>().values[turn_];
    turn_ ^= 1;
    for (int f = 0; f < kFields; ++f) own.values[f] = warp_sum(own.values[f]);
    if (lane_id() == 0) {
      for (int f = 0; f < kFields; ++f) shared[warp_id()][f] = own.values[f];
    }
    __syncthreads();
    Sums<kFields> total = {};
    const int warps = static_cast<int>(blockDim.x) / kWarpSize;
    for (int warp = 0; warp < warps; ++warp) {
      for (int f = 0; f < kFields; ++f) total.values[f] += shared[warp][f];
    }
    return total;
  }

 private:
  int turn_ = 0;
};

// The blocks that share a sample: `size` of them, of which this one is number `rank`. With more than one, the whole
// grid is resident, and every block makes the same calls in the same order, for one sample after the other.
class Team {
 public:
  __device__ Team(unsigned char* workspace, int64_t parts, int size)
      : parts_(parts),
        number_(static_cast<int>(blockIdx.x / static_cast<unsigned>(size))),
        size_(size),
        rank_(static_cast<int>(blockIdx.x % static_cast<unsigned>(size))),
        workspace_(workspace) {}

  __device__ int number() const { return number_; }
  // Of teams in the grid.
  __device__ int count() const { return static_cast<int>(gridDim.x / static_cast<unsigned>(size_)); }
  __device__ int64_t first_part() const { return rank_; }
  __device__ int64_t part_step() const { return size_; }
  __device__ bool alone() const { return size_ == 1; }

  __device__ BlockSum& block_sum() { return block_sum_; }

  // Adds up part_sum(part), to which each thread of a block contributes, over all parts. A block that rests computes
  // none.
  template <int kFields, typename PartSum>
  __device__ Sums<kFields> sum(bool rests, const PartSum& part_sum) {
    Sums<kFields> total = {};
    for (int64_t part = rank_; part < parts_ && !rests; part += size_) {
      const Sums<kFields> own = block_sum_(part_sum(part));
      total += own;
      if (alone() || threadIdx.x != 0) continue;
      for (int f = 0; f < kFields; ++f) partial(part)[f] = own.values[f];
    }
    if (alone()) return total;
    grid_barrier();
    total = {};
    for (int64_t part = 0; part < parts_ && !rests; ++part) {
      for (int f = 0; f < kFields; ++f) total.values[f] += partial(part)[f];
    }
    turn_ ^= 1;
    return total;
  }

  __device__ void barrier() const {
    if (!alone()) grid_barrier();
  }

  // Brackets a sum of a search whose length differs from sample to sample: a team that has finished takes part in the
  // barriers until all have. begin_round is false where this block, end_round where every team, has finished.
  __device__ bool begin_round(bool searching) {
    if (alone()) return searching;
    if (rank_ == 0 && threadIdx.x == 0) {
      if (searching) atomicAdd(searching_teams(round_), 1);
      // The next counter was last read before the last barrier, and is added to after the next one.
      if (number_ == 0) *searching_teams((round_ + 1) % kRoundCounters) = 0;
    }
    return true;
  }
  __device__ bool end_round() {
    if (alone()) return true;
    const bool searching = *searching_teams(round_) != 0;
    round_ = (round_ + 1) % kRoundCounters;
    return searching;
  }

 private:
  __device__ int* searching_teams(int round) const { return reinterpret_cast<int*>(workspace_) + round; }
  // The sums of a part in the set whose turn it is.
  __device__ double* partial(int64_t part) const {
    double* const sets = reinterpret_cast<double*>(workspace_ + kCounterBytes);
    return sets + ((turn_ * count() + number_) * parts_ + part) * kMaxFields;
  }

  int64_t parts_;
  int number_, size_, rank_;
  unsigned char* workspace_;
  int turn_ = 0, round_ = 0;
  BlockSum block_sum_;
};

MDPROP_ISA_END
