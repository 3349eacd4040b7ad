// Neighbours as integers in the order (distance, index), NaN last: what lists hold and what selection counts digits of.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <limits>

#include "common/device.cuh"
#include "knn_topk/knn_topk_math.h"

namespace mdprop {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Order<A> without a sign: compares like numbers from 0 on.
template <typename A>
__device__ __forceinline__ auto order_bits(A value) {
  using Bits = std::make_unsigned_t<typename Order<A>::Key>;
  return static_cast<Bits>(Order<A>::key(value)) ^ (Bits{1} << (8 * sizeof(Bits) - 1));
}
template <typename A, typename Bits>
__device__ __forceinline__ A value_of_bits(Bits bits) {
  return Order<A>::value(static_cast<typename Order<A>::Key>(bits ^ (Bits{1} << (8 * sizeof(Bits) - 1))));
}

// A neighbour at an fp32 distance; also a candidate with the bound of its score.
struct NarrowKey {
  using Distance = float;
  static constexpr int kDigits = 8;

  uint64_t bits;  // distance, index

  static __device__ NarrowKey make(float distance, uint32_t index) {
    return {uint64_t{order_bits(distance)} << 32 | index};
  }
  static __device__ NarrowKey last() { return {~uint64_t{0}}; }
  __device__ float distance() const { return value_of_bits<float>(static_cast<uint32_t>(bits >> 32)); }
  __device__ uint32_t index() const { return static_cast<uint32_t>(bits); }
  // Digit i of 8 bits, from the most significant one.
  __device__ unsigned digit(int i) const { return static_cast<unsigned>(bits >> (56 - 8 * i)) & 255u; }
  // With all digits from i on cleared.
  __device__ NarrowKey prefix(int i) const { return {i == 0 ? 0 : bits & ~uint64_t{0} << (64 - 8 * i)}; }
  __device__ void set_digit(int i, unsigned digit) { bits |= uint64_t{digit} << (56 - 8 * i); }
  // That of the lane whose number differs in these bits.
  __device__ NarrowKey of_lane_xor(int lanes) const { return {__shfl_xor_sync(kAllLanes, bits, lanes)}; }
  friend __device__ bool operator<(const NarrowKey& a, const NarrowKey& b) { return a.bits < b.bits; }
};

// A neighbour at an fp64 distance.
struct alignas(16) WideKey {
  using Distance = double;
  static constexpr int kDigits = 12;

  uint64_t distance_bits, index_bits;

  static __device__ WideKey make(double distance, uint32_t index) { return {order_bits(distance), index}; }
  static __device__ WideKey last() { return {~uint64_t{0}, ~uint64_t{0}}; }
  __device__ double distance() const { return value_of_bits<double>(distance_bits); }
  __device__ uint32_t index() const { return static_cast<uint32_t>(index_bits); }
  __device__ unsigned digit(int i) const {
    return static_cast<unsigned>(i < 8 ? distance_bits >> (56 - 8 * i) : index_bits >> (88 - 8 * i)) & 255u;
  }
  __device__ WideKey prefix(int i) const {
    const auto leading = [](uint64_t bits, int kept) { return kept <= 0 ? 0 : bits & ~uint64_t{0} << (64 - 8 * kept); };
    return {leading(distance_bits, i < 8 ? i : 8), leading(index_bits, i - 4)};  // four digits of an index are in use
  }
  __device__ void set_digit(int i, unsigned digit) {
    if (i < 8) {
      distance_bits |= uint64_t{digit} << (56 - 8 * i);
    } else {
      index_bits |= uint64_t{digit} << (88 - 8 * i);
    }
  }
  __device__ WideKey of_lane_xor(int lanes) const {
    return {__shfl_xor_sync(kAllLanes, distance_bits, lanes), __shfl_xor_sync(kAllLanes, index_bits, lanes)};
  }
  friend __device__ bool operator<(const WideKey& a, const WideKey& b) {
    return a.distance_bits != b.distance_bits ? a.distance_bits < b.distance_bits : a.index_bits < b.index_bits;
  }
};

template <typename A>
using KeyOf = std::conditional_t<sizeof(A) == 8, WideKey, NarrowKey>;

}  // namespace
}  // namespace mdprop
