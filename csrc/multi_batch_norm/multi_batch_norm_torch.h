// What the torch sides of multi_batch_norm and of its mixture share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/torch_device.h"
#include "common/torch_stable.h"
#include "multi_batch_norm/multi_batch_norm.h"

namespace mdprop {

using OptionalTensor = std::optional<Tensor>;

// Which samples belong to which branch. On the CPU they are sorted here: a stable counting sort of the ids, or the
// running sums of the sizes. Kernels on a card do that for themselves.
class Branches {
 public:
  Branches(const DeviceScope& device, const Tensor& x, int64_t branches, const OptionalTensor& ids,
           const OptionalTensor& sizes);
  // One sample a branch.
  Branches(const DeviceScope& device, const Tensor& x);

  // The shape of x in this format. What it points to lives as long as these branches.
  MultiBatchNormShape shape_of(const Tensor& x, MemoryFormat format, bool training, double eps,
                               const std::optional<std::string>& activation);

 private:
  // Refuses sizes that are not those of this batch, where the host can read them.
  void check_sizes() const;
  void sort();

  bool on_host_;
  int64_t samples_, branches_;
  bool sizes_given_ = false;              // from the host to kernels on a card, as a parameter
  OptionalTensor ids_, sizes_;            // int64, dense, on the device of x unless sizes are given
  std::vector<int64_t> order_, offsets_;  // on the CPU
  OptionalTensor workspace_;              // on a card
};

// Refuses a table that is not [branches, channels].
void check_table(const OptionalTensor& table, const char* name, int64_t branches, int64_t channels);

// `tensor` dense in the format, at an address from which a card can load 16 bytes at a time.
Tensor kernel_input(const DeviceScope& device, const Tensor& tensor, MemoryFormat format);

// The gradient of a result like x, in the dtype of x.
inline Tensor grad_like(const Tensor& grad, const Tensor& x) {
  return grad.scalar_type() == x.scalar_type() ? grad : torch::stable::to(grad, x.scalar_type());
}

// Calls body(TypeTag<T>()) for the dtype of statistics: float or double.
template <typename Body>
void dispatch_compute(ScalarType dtype, const Body& body) {
  dtype == ScalarType::Double ? body(TypeTag<double>()) : body(TypeTag<float>());
}

}  // namespace mdprop
