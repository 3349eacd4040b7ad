#include "multi_batch_norm/multi_batch_norm_torch.h"

#include <numeric>

namespace mdprop {

Branches::Branches(int64_t samples, int64_t branches, const OptionalTensor& ids, const OptionalTensor& sizes)
    : order_(samples), offsets_(branches + 1, 0) {
  std::vector<int64_t> branch_of(samples, 0);
  if (ids.has_value()) {
    STD_TORCH_CHECK(ids->dim() == 1 && ids->size(0) == samples, "multi_batch_norm: branch ids must be [N]");
    const Tensor dense = as_dtype(*ids, ScalarType::Long);
    for (int64_t n = 0; n < samples; ++n) branch_of[n] = data<int64_t>(dense)[n];
  } else if (sizes.has_value()) {
    STD_TORCH_CHECK(sizes->numel() == branches, "multi_batch_norm: branch sizes must be [B]");
    const Tensor dense = as_dtype(*sizes, ScalarType::Long);
    int64_t n = 0;
    for (int64_t b = 0; b < branches; ++b) {
      const int64_t size = data<int64_t>(dense)[b];
      STD_TORCH_CHECK(size >= 0 && n + size <= samples, "multi_batch_norm: branch sizes must be >= 0 and add up to N");
      for (const int64_t end = n + size; n < end; ++n) branch_of[n] = b;
    }
    STD_TORCH_CHECK(n == samples, "multi_batch_norm: branch sizes must add up to N = ", samples, ", got ", n);
  }
  for (const int64_t b : branch_of) {
    STD_TORCH_CHECK(b >= 0 && b < branches, "multi_batch_norm: branch ids must be in [0, ", branches, "), got ", b);
    ++offsets_[b + 1];
  }
  for (int64_t b = 0; b < branches; ++b) offsets_[b + 1] += offsets_[b];
  std::vector<int64_t> next(offsets_.begin(), offsets_.end() - 1);
  for (int64_t n = 0; n < samples; ++n) order_[next[branch_of[n]]++] = n;
}

Branches::Branches(int64_t samples) : order_(samples), offsets_(samples + 1) {
  std::iota(order_.begin(), order_.end(), 0);
  std::iota(offsets_.begin(), offsets_.end(), 0);
}

MultiBatchNormShape shape_of(const Tensor& x, MemoryFormat format, const Branches& branches, bool training, double eps,
                             const std::optional<std::string>& activation) {
  STD_TORCH_CHECK(!activation.has_value() || *activation == "relu",
                  "multi_batch_norm: activation must be None or 'relu'");
  MultiBatchNormShape shape;
  shape.samples = x.size(0);
  shape.channels = x.size(1);
  shape.spatial = 1;
  for (int64_t axis = 2; axis < x.dim(); ++axis) shape.spatial *= x.size(axis);
  shape.branches = branches.count();
  shape.channels_last = format != MemoryFormat::Contiguous;
  shape.order = branches.order();
  shape.offsets = branches.offsets();
  shape.training = training;
  shape.relu = activation.has_value();
  shape.eps = eps;
  return shape;
}

void check_table(const OptionalTensor& table, const char* name, int64_t branches, int64_t channels) {
  STD_TORCH_CHECK(!table.has_value() || (table->dim() == 2 && table->size(0) == branches && table->size(1) == channels),
                  "multi_batch_norm: ", name, " must be [B, C]");
}

}  // namespace mdprop
