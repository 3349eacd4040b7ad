// Selecting and sorting neighbours as integer keys, distance * 2^index_bits + index: all different, in the order of
// (distance, index), so that the result does not depend on where and when a key was written.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/device.cuh"

namespace mdprop {
namespace {

constexpr uint64_t kNoKey = ~uint64_t{0};  // of no neighbour: the last in order
constexpr int kDigitBits = 8;
constexpr int kDigits = 1 << kDigitBits;

// The threads that work on one list of keys: a warp or a block.
template <int kThreads>
struct Team {
  __device__ __forceinline__ static int rank() { return static_cast<int>(threadIdx.x) % kThreads; }
  __device__ __forceinline__ static void sync() {
    if constexpr (kThreads == kWarpSize) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  }
};

// What a team shares while it selects.
struct SelectSpace {
  int counts[kDigits];  // of keys by digit
  int digit;            // that holds the wanted key
  int before, inside;   // keys of lower digits and of this one; inside is 0 where there are fewer keys than wanted
};

// One warp finds the digit of the wanted-th smallest key. Lane l owns kDigits / 32 neighbouring digits.
__device__ __forceinline__ void find_digit(SelectSpace& space, int wanted) {
  constexpr int kOwn = kDigits / kWarpSize;
  const int lane = lane_id();
  int sum = 0;
  for (int i = 0; i < kOwn; ++i) sum += space.counts[lane * kOwn + i];
  int until = sum;  // keys of digits up to the lane's last
  for (int lanes = 1; lanes < kWarpSize; lanes *= 2) {
    const int other = __shfl_up_sync(kAllLanes, until, lanes);
    if (lane >= lanes) until += other;
  }
  int before = until - sum;
  if (lane == kWarpSize - 1 && until < wanted) space.inside = 0;
  if (before >= wanted || until < wanted) return;
  for (int digit = lane * kOwn; before < wanted; ++digit) {
    space.digit = digit;
    space.before = before;
    space.inside = space.counts[digit];
    before += space.counts[digit];
  }
}

// A key that exactly `wanted` of the `count` keys do not exceed; the greatest key where no more than that exist.
// Counting by digits, the highest first: a digit that holds just what is wanted ends the search, which spares the
// digits of the index unless distances are tied. Every thread of the team gets the same.
template <int kThreads>
__device__ __forceinline__ uint64_t select_pivot(const uint64_t* keys, int64_t count, int wanted, int key_bits,
                                                 SelectSpace& space) {
  using Threads = Team<kThreads>;
  uint64_t prefix = 0;
  int shift = key_bits;  // below the digits that are known
  while (shift > 0) {
    const int next = shift > kDigitBits ? shift - kDigitBits : 0;
    const auto mask = (uint64_t{1} << (shift - next)) - 1;
    for (int i = Threads::rank(); i < kDigits; i += kThreads) space.counts[i] = 0;
    Threads::sync();
    for (int64_t i = Threads::rank(); i < count; i += kThreads) {
      const uint64_t key = keys[i];
      if (key != kNoKey && key >> shift == prefix) atomicAdd(&space.counts[key >> next & mask], 1);
    }
    Threads::sync();
    if (kThreads == kWarpSize || warp_id() == 0) find_digit(space, wanted);
    Threads::sync();
    if (space.inside == 0) return kNoKey - 1;
    prefix = prefix << (shift - next) | static_cast<uint64_t>(space.digit);
    wanted -= space.before;
    shift = next;
    if (space.inside == wanted) break;
  }
  return ((prefix + 1) << shift) - 1;
}

// Sorts a power of two of keys in place, by a bitonic network.
template <int kThreads>
__device__ __forceinline__ void sort_keys(uint64_t* keys, int size) {
  using Threads = Team<kThreads>;
  for (int width = 2; width <= size; width *= 2) {
    for (int stride = width / 2; stride > 0; stride /= 2) {
      for (int i = Threads::rank(); i < size / 2; i += kThreads) {
        const int low = 2 * i - (i & (stride - 1)), high = low + stride;
        const uint64_t a = keys[low], b = keys[high];
        if ((a > b) == ((low & width) == 0)) {
          keys[low] = b;
          keys[high] = a;
        }
      }
      Threads::sync();
    }
  }
}

}  // namespace
}  // namespace mdprop
