// Selection: a warp keeps the smallest keys of a list; a block sorts keys.
#pragma once

#include "common/device.cuh"
#include "knn_topk/knn_topk_keys.cuh"

namespace mdprop {
namespace {

constexpr int kBins = 256;
constexpr int kLaneBins = kBins / kWarpSize;

// Where the `wanted`-th smallest of the binned keys lies.
struct BinChoice {
  unsigned bin, below, inside;  // its bin, the keys in lower bins, those in this one
};

// Each lane adds up its own run of bins; a prefix sum over the lanes then points to the one that holds the key.
__device__ inline BinChoice choose_bin(const unsigned* histogram, unsigned wanted) {
  unsigned own = 0;
  for (int i = 0; i < kLaneBins; ++i) own += histogram[lane_id() * kLaneBins + i];
  unsigned through = own;
  for (int lanes = 1; lanes < kWarpSize; lanes *= 2) {
    const unsigned lower = __shfl_up_sync(kAllLanes, through, lanes);
    if (lane_id() >= lanes) through += lower;
  }
  const int chosen = __ffs(static_cast<int>(__ballot_sync(kAllLanes, through >= wanted))) - 1;
  BinChoice choice{static_cast<unsigned>(lane_id() * kLaneBins), through - own, 0};
  for (int i = 0; i < kLaneBins; ++i) {
    choice.inside = histogram[choice.bin];
    if (i == kLaneBins - 1 || choice.below + choice.inside >= wanted) break;
    choice.below += choice.inside;
    ++choice.bin;
  }
  return {__shfl_sync(kAllLanes, choice.bin, chosen), __shfl_sync(kAllLanes, choice.below, chosen),
          __shfl_sync(kAllLanes, choice.inside, chosen)};
}

// Keeps the `wanted` smallest of `count` different keys, in no particular order, by one warp: radix selection from the
// top digit on, until a digit parts them. Returns the largest that it kept. 1 <= wanted < count.
template <typename Key>
__device__ Key keep_smallest(Key* keys, int count, int wanted, unsigned* histogram /* [kBins], the warp's own */) {
  Key bound = Key{};
  int digits = 0;
  for (unsigned left = wanted, inside = 0; inside != left; ++digits) {
    for (int i = lane_id(); i < kBins; i += kWarpSize) histogram[i] = 0;
    __syncwarp();
    for (int i = lane_id(); i < count; i += kWarpSize) {
      const Key key = keys[i];
      const Key prefix = key.prefix(digits);
      if (!(prefix < bound) && !(bound < prefix)) atomicAdd(&histogram[key.digit(digits)], 1u);
    }
    __syncwarp();
    const BinChoice choice = choose_bin(histogram, left);
    __syncwarp();
    bound.set_digit(digits, choice.bin);
    left -= choice.below;
    inside = choice.inside;
  }
  int kept = 0;
  Key largest = Key{};
  for (int first = 0; first < count; first += kWarpSize) {
    const bool valid = first + lane_id() < count;
    const Key key = valid ? keys[first + lane_id()] : Key::last();
    const bool keep = valid && !(bound < key.prefix(digits));
    const uint32_t votes = __ballot_sync(kAllLanes, keep);
    // All lanes have read before the first writes, and places only move forward.
    if (keep) keys[kept + __popc(votes & ((1u << lane_id()) - 1))] = key;
    if (keep && largest < key) largest = key;
    kept += __popc(votes);
    __syncwarp();
  }
  for (int lanes = kWarpSize / 2; lanes > 0; lanes /= 2) {
    const Key other = largest.of_lane_xor(lanes);
    if (largest < other) largest = other;
  }
  return largest;
}

// Sorts keys in shared or global memory, by all threads of a block: a bitonic network whose comparisons all point up,
// so that places beyond `count` act as infinite and are skipped. Ends with a barrier.
template <typename Key>
__device__ void sort_block(Key* keys, int count) {
  const auto exchange = [&](int low, int high) {
    if (high >= count) return;
    const Key a = keys[low], b = keys[high];
    if (b < a) {
      keys[low] = b;
      keys[high] = a;
    }
  };
  const int pairs = (count + 1) / 2;
  for (int half = 1; half < count; half *= 2) {
    for (int i = threadIdx.x; i < pairs + half; i += blockDim.x) {
      const int place = i & (half - 1);
      exchange(2 * i - place, 2 * (i - place) + 2 * half - 1 - place);
    }
    __syncthreads();
    for (int stride = half / 2; stride > 0; stride /= 2) {
      for (int i = threadIdx.x; i < pairs + stride; i += blockDim.x) {
        const int low = 2 * i - (i & (stride - 1));
        exchange(low, low + stride);
      }
      __syncthreads();
    }
  }
}

}  // namespace
}  // namespace mdprop
