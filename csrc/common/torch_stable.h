// What every <op>_torch.cpp needs of torch, through the stable ABI only: dtype switch, memory formats, checks.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/MemoryFormat.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>

#include "common/numeric.h"

namespace mdprop {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <typename T>
struct TypeTag {
  using type = T;
};

// Calls body(TypeTag<T>()) with the storage type of `dtype`; `op` names the caller in the error.
template <typename Body>
void dispatch_floating(ScalarType dtype, const char* op, const Body& body) {
  switch (dtype) {
    case ScalarType::Float:
      return body(TypeTag<float>());
    case ScalarType::Double:
      return body(TypeTag<double>());
    case ScalarType::BFloat16:
      return body(TypeTag<BFloat16>());
    case ScalarType::Half:
      return body(TypeTag<Half>());
    default:
      STD_TORCH_CHECK(false, op, ": expected a tensor of float32, float64, bfloat16 or float16");
  }
}

// fp64 for fp64, else fp32: the dtype of acc_t.
inline ScalarType accumulate_dtype(ScalarType dtype) {
  return dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

template <typename T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <typename T>
T* mutable_data(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// nullptr for an absent tensor.
template <typename T>
const T* data(const std::optional<Tensor>& tensor) {
  return tensor.has_value() ? data<T>(*tensor) : nullptr;
}

// `tensor`, dense and of the given dtype. Asks the dispatcher only where something is to do: a call costs a
// microsecond.
inline Tensor as_dtype(const Tensor& tensor, ScalarType dtype) {
  const Tensor converted = tensor.scalar_type() == dtype ? tensor : torch::stable::to(tensor, dtype);
  return converted.is_contiguous() ? converted : torch::stable::contiguous(converted);
}

inline std::optional<Tensor> as_dtype(const std::optional<Tensor>& tensor, ScalarType dtype) {
  if (!tensor.has_value()) return std::nullopt;
  return as_dtype(*tensor, dtype);
}

// Dense with the channels innermost and the batch outermost.
inline bool is_channels_last(const Tensor& tensor) {
  const int64_t dim = tensor.dim();
  if (dim != 4 && dim != 5) return false;
  int64_t expected = tensor.size(1);
  if (tensor.size(1) != 1 && tensor.stride(1) != 1) return false;
  for (int64_t axis = dim - 1; axis >= 0; --axis) {
    if (axis == 1) continue;
    if (tensor.size(axis) != 1 && tensor.stride(axis) != expected) return false;
    expected *= tensor.size(axis);
  }
  return true;
}

// The dense format in which a kernel reads `tensor`: its own if it is channels_last and not contiguous too.
inline MemoryFormat kernel_format(const Tensor& tensor) {
  if (tensor.is_contiguous() || !is_channels_last(tensor)) return MemoryFormat::Contiguous;
  return tensor.dim() == 4 ? MemoryFormat::ChannelsLast : MemoryFormat::ChannelsLast3d;
}

// `tensor` itself where it already has the format, else a copy.
inline Tensor in_format(const Tensor& tensor, MemoryFormat format) {
  const bool has_it = format == MemoryFormat::Contiguous ? tensor.is_contiguous() : is_channels_last(tensor);
  return has_it ? tensor : torch::stable::contiguous(tensor, format);
}

inline bool same_shape(const Tensor& a, const Tensor& b) {
  if (a.dim() != b.dim()) return false;
  for (int64_t axis = 0; axis < a.dim(); ++axis) {
    if (a.size(axis) != b.size(axis)) return false;
  }
  return true;
}

struct NamedTensor {
  const char* name;
  std::optional<Tensor> tensor;
};

inline std::string device_name(const torch::stable::Device& device) {
  if (device.is_cpu()) return "cpu";
  return device.is_cuda() ? "cuda:" + std::to_string(device.index()) : "another kind of device";
}

// Refuses tensors that are elsewhere than `x`, since kernels use their addresses.
inline void check_device(const char* op, const Tensor& x, std::initializer_list<NamedTensor> others) {
  const torch::stable::Device device = x.device();
  for (const auto& [name, tensor] : others) {
    STD_TORCH_CHECK(!tensor.has_value() || tensor->device() == device, op, ": ", name,
                    " must be on the device of the first tensor, ", device_name(device), ", got ",
                    device_name(tensor->device()));
  }
}

}  // namespace mdprop
