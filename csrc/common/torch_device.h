// One implementation of an op for both devices: which kernel runs, where, and how the op is registered.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <optional>

#include "common/torch_stable.h"

#ifdef MDPROP_WITH_CUDA
#include "common/cuda_stream.h"
#endif

namespace mdprop {

// Makes the device of a tensor current while it lives, and knows torch's stream there.
class DeviceScope {
 public:
#ifdef MDPROP_WITH_CUDA
  explicit DeviceScope(const Tensor& tensor) : cuda_(tensor.is_cuda()) {
    if (!cuda_) return;
    guard_.emplace(tensor.get_device_index());
    stream_ = current_cuda_stream(tensor.get_device_index());
  }
#else
  explicit DeviceScope(const Tensor&) {}
#endif
  DeviceScope(const DeviceScope&) = delete;

  // Whether CUDA kernels run, so that values of tensors are out of the host's reach.
  bool cuda() const { return cuda_; }
  void* stream() const { return stream_; }

 private:
#ifdef MDPROP_EMULATE
  bool cuda_ = true;
#else
  bool cuda_ = false;
#endif
  void* stream_ = nullptr;
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
};

}  // namespace mdprop

// Calls name_cuda(args, stream) or name_cpu(args), whichever belongs to the scope.
#if defined(MDPROP_EMULATE)
#define MDPROP_RUN(name, scope, ...) name##_cuda(__VA_ARGS__, (scope).stream())
#elif defined(MDPROP_WITH_CUDA)
#define MDPROP_RUN(name, scope, ...) \
  ((scope).cuda() ? name##_cuda(__VA_ARGS__, (scope).stream()) : name##_cpu(__VA_ARGS__))
#else
#define MDPROP_RUN(name, scope, ...) name##_cpu(__VA_ARGS__)
#endif

// MDPROP_REGISTER_KERNELS(module) { module.impl("op", TORCH_BOX(&op)); } registers for every device of this build.
#ifdef MDPROP_WITH_CUDA
#define MDPROP_REGISTER_CUDA \
  STABLE_TORCH_LIBRARY_IMPL(mdprop, CUDA, mdprop_cuda_module) { mdprop_register_kernels(mdprop_cuda_module); }
#else
#define MDPROP_REGISTER_CUDA
#endif
#define MDPROP_REGISTER_KERNELS(module)                                                                     \
  static void mdprop_register_kernels(torch::stable::detail::StableLibrary& module);                        \
  STABLE_TORCH_LIBRARY_IMPL(mdprop, CPU, mdprop_cpu_module) { mdprop_register_kernels(mdprop_cpu_module); } \
  MDPROP_REGISTER_CUDA                                                                                      \
  static void mdprop_register_kernels(torch::stable::detail::StableLibrary& module)
