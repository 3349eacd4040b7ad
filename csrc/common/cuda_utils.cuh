// Checks and small questions around the CUDA runtime, without torch.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace mdprop {

// Throws std::runtime_error that names the call if `status` is an error.
inline void cuda_check(cudaError_t status, const std::string& what) {
  if (status != cudaSuccess) throw std::runtime_error(what + ": " + cudaGetErrorString(status));
}

// Zeros device memory in stream order.
inline void cuda_zero(void* pointer, size_t bytes, void* stream) {
  cuda_check(cudaMemsetAsync(pointer, 0, bytes, static_cast<cudaStream_t>(stream)), "cudaMemsetAsync");
}

// What the current device has of something. Grids may be sized by it; results may not depend on it.
inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  cuda_check(cudaGetDevice(&device), "cudaGetDevice");
  cuda_check(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute");
  return value;
}

inline int multiprocessor_count() { return device_attribute(cudaDevAttrMultiProcessorCount); }
inline int64_t l2_cache_bytes() { return device_attribute(cudaDevAttrL2CacheSize); }

// How much shared memory each of `blocks` blocks may have so that a multiprocessor of the current device holds them
// all.
inline int64_t shared_memory_share(int blocks) {
  constexpr int kReserved = 1024;  // of each block, for the system
  return std::min(device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin),
                  device_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor) / blocks - kReserved);
}

}  // namespace mdprop
