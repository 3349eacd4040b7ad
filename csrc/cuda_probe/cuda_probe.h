// The smallest CUDA op: shows that a build's kernels load and run on the card, on torch's current stream.
#pragma once

#include <cstdint>

namespace mdprop {

struct CudaProbeArgs {
  float* out;  // [count], on the device
  int64_t count;
  void* stream;  // cudaStream_t
};

// out[i] = i, asynchronously on the stream.
void cuda_probe_cuda(const CudaProbeArgs& args);

}  // namespace mdprop
