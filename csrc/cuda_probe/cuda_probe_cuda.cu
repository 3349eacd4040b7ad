#include "cuda_probe/cuda_probe.h"

#include "common/launch.h"

namespace mdprop {
namespace {

// One thread an element.
__global__ void cuda_probe_kernel(float* out, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) out[i] = static_cast<float>(i);
}

}  // namespace

void cuda_probe_cuda(const CudaProbeArgs& args) {
  if (args.count == 0) return;
  constexpr int kThreads = 256;
  const auto blocks = static_cast<unsigned>((args.count + kThreads - 1) / kThreads);
  launch<cuda_probe_kernel>(blocks, kThreads, 0, args.stream, args.out, args.count);
}

}  // namespace mdprop
