#include "cuda_probe/cuda_probe.h"

#include "common/cuda_stream.h"
#include "common/torch_stable.h"

namespace mdprop {
namespace {

// Tensor like -> a new tensor of its shape that holds 0, 1, 2, ...
Tensor cuda_probe(Tensor like) {
  const torch::stable::accelerator::DeviceGuard guard(like.get_device_index());
  STD_TORCH_CHECK(like.scalar_type() == ScalarType::Float, "_cuda_probe: expected a float32 tensor");
  Tensor out = torch::stable::empty_like(in_format(like, MemoryFormat::Contiguous));
  cuda_probe_cuda({mutable_data<float>(out), out.numel(), current_cuda_stream(like.get_device_index())});
  return out;
}

}  // namespace
}  // namespace mdprop

STABLE_TORCH_LIBRARY_IMPL(mdprop, CUDA, module) { module.impl("_cuda_probe", TORCH_BOX(&mdprop::cuda_probe)); }
