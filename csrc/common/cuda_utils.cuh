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

// How many multiprocessors the current device has. Grids may be sized by it; results may not depend on it.
inline int multiprocessor_count() {
  int device = 0, count = 0;
  cuda_check(cudaGetDevice(&device), "cudaGetDevice");
  cuda_check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  return count;
}

// How much shared memory each of `blocks` blocks may have so that a multiprocessor of the current device holds them
// all.
inline int64_t shared_memory_share(int blocks) {
  constexpr int kReserved = 1024;  // of each block, for the system
  int device = 0, of_block = 0, of_multiprocessor = 0;
  cuda_check(cudaGetDevice(&device), "cudaGetDevice");
  cuda_check(cudaDeviceGetAttribute(&of_block, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
             "cudaDeviceGetAttribute");
  cuda_check(cudaDeviceGetAttribute(&of_multiprocessor, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device),
             "cudaDeviceGetAttribute");
  return std::min(of_block, of_multiprocessor / blocks - kReserved);
}

}  // namespace mdprop
