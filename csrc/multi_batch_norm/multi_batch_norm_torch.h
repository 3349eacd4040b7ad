// What the torch sides of multi_batch_norm and of its mixture share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/torch_stable.h"
#include "multi_batch_norm/multi_batch_norm.h"

namespace mdprop {

using OptionalTensor = std::optional<Tensor>;

// Which samples belong to which branch: a stable counting sort of the ids, or the running sums of the sizes.
class Branches {
 public:
  Branches(int64_t samples, int64_t branches, const OptionalTensor& ids, const OptionalTensor& sizes);

  // One sample a branch.
  explicit Branches(int64_t samples);

  const int64_t* order() const { return order_.data(); }      // [N]
  const int64_t* offsets() const { return offsets_.data(); }  // [B + 1]
  int64_t count() const { return static_cast<int64_t>(offsets_.size()) - 1; }

 private:
  std::vector<int64_t> order_, offsets_;
};

MultiBatchNormShape shape_of(const Tensor& x, MemoryFormat format, const Branches& branches, bool training, double eps,
                             const std::optional<std::string>& activation);

// Refuses a table that is not [branches, channels].
void check_table(const OptionalTensor& table, const char* name, int64_t branches, int64_t channels);

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
