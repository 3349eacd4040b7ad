// Checks and small questions around the CUDA runtime, without torch.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
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

}  // namespace mdprop
