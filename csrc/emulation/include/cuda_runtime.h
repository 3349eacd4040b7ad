// Stands in for CUDA's header of this name where the host compiler reads .cu files: qualifiers, built-in variables,
// intrinsics and the few runtime calls that the project makes. What is missing here does not compile, so that it gets
// a meaning before it is used.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>

#include "emulation/machine.h"

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint2 {
  unsigned x, y;
};
struct uint4 {
  unsigned x, y, z, w;
};
struct float2 {
  float x, y;
};
struct float4 {
  float x, y, z, w;
};

#define threadIdx (::mdprop::emulation::current_thread().index)
#define blockIdx (::mdprop::emulation::current_thread().block->index)
#define blockDim (::mdprop::emulation::current_grid().block)
#define gridDim (::mdprop::emulation::current_grid().grid)
constexpr int warpSize = ::mdprop::emulation::kWarpSize;

// The call site of a function with these two parameters at its end.
#define MDPROP_SITE_PARAMETERS const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(MDPROP_SITE_PARAMETERS) { ::mdprop::emulation::block_barrier({"__syncthreads", file, line}); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __nanosleep(unsigned) { ::mdprop::emulation::yield(); }

#include "emulation/atomics.h"
#include "emulation/warp.h"

inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }
inline int __clz(int value) { return value == 0 ? 32 : __builtin_clz(static_cast<unsigned>(value)); }
inline int __clzll(long long value) {
  return value == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(value));
}
inline unsigned __brev(unsigned value) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (value >> bit & 1u) << (31 - bit);
  return reversed;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
inline float __uint_as_float(unsigned value) {
  float result;
  std::memcpy(&result, &value, sizeof(result));
  return result;
}
inline unsigned __float_as_uint(float value) {
  unsigned result;
  std::memcpy(&result, &value, sizeof(result));
  return result;
}
inline float __int_as_float(int value) { return __uint_as_float(static_cast<unsigned>(value)); }
inline int __float_as_int(float value) { return static_cast<int>(__float_as_uint(value)); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
template <typename T>
T __ldg(const T* pointer) {
  return *pointer;
}

using std::abs;
using std::fma;
using std::max;
using std::min;

enum cudaError_t { cudaSuccess = 0, cudaErrorUnknown = 999 };
using cudaStream_t = void*;
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrL2CacheSize = 38,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};

inline const char* cudaGetErrorString(cudaError_t) { return "emulated error"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* pointer, int value, size_t bytes, cudaStream_t) {
  std::memset(pointer, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = ::mdprop::emulation::multiprocessors();
      return cudaSuccess;
    case cudaDevAttrL2CacheSize:
      *value = 512 << 10;  // as small against the inputs of tests as a card's is against large batches
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = ::mdprop::emulation::kMultiprocessorSharedBytes;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = ::mdprop::emulation::kSharedBytes;
      return cudaSuccess;
  }
  return cudaErrorUnknown;
}
