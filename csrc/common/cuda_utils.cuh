// Error checks around CUDA calls, without torch.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace mdprop {

// Throws std::runtime_error that names the call if `status` is an error.
inline void cuda_check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) {
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
  }
}

}  // namespace mdprop
