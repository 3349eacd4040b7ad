// What a thread of a kernel needs beyond plain CUDA: shared memory, its place in the block, checks, sums of a warp.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <type_traits>

#include "common/macros.h"

MDPROP_ISA_BEGIN

constexpr int kWarpSize = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;

// The block's one Storage, uninitialised, of at most 48 KB; a kernel has one of each type.
template <typename Storage>
__device__ __forceinline__ Storage& shared_storage() {
  static_assert(std::is_trivially_default_constructible_v<Storage>, "shared memory is not initialised");
#ifdef __CUDACC__
  __shared__ Storage storage;
  return storage;
#else
  static const char key = 0;
  return *reinterpret_cast<Storage*>(emulation::shared_memory(&key, sizeof(Storage)));
#endif
}

// The dynamic shared memory that the launch asked for, aligned to 128 bytes.
__device__ __forceinline__ unsigned char* dynamic_shared() {
#ifdef __CUDACC__
  extern __shared__ __align__(128) unsigned char mdprop_dynamic_shared[];
  return mdprop_dynamic_shared;
#else
  return emulation::shared_memory(nullptr, 0);
#endif
}

// Ends the kernel with an error where the condition fails: the one way to refuse values that only the device knows. The
// message holds no %.
__device__ __forceinline__ void device_check(bool condition, const char* message) {
  if (condition) return;
#ifdef __CUDACC__
  printf("mdprop_ext: ");
  printf(message);  // a %s would cost the kernel a stack
  printf("\n");
  __trap();
#else
  emulation::fail(message);
#endif
}

// Of one-dimensional blocks.
__device__ __forceinline__ int lane_id() { return static_cast<int>(threadIdx.x) % kWarpSize; }
__device__ __forceinline__ int warp_id() { return static_cast<int>(threadIdx.x) / kWarpSize; }

// The sum over the 32 lanes, the same bits in each: a tree whose shape is fixed.
template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
  for (int lanes = kWarpSize / 2; lanes > 0; lanes /= 2) value += __shfl_xor_sync(kAllLanes, value, lanes);
  return value;
}

MDPROP_ISA_END
