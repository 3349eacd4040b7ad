#include "multi_batch_norm/multi_batch_norm_torch.h"

#include <algorithm>
#include <numeric>

#include "multi_batch_norm/multi_batch_norm_plan.h"

namespace mdprop {
namespace {

OptionalTensor beside(const OptionalTensor& tensor, const Tensor& x) {
  if (!tensor.has_value()) return std::nullopt;
  const Tensor numbers = as_dtype(*tensor, ScalarType::Long);
  return numbers.device() == x.device() ? numbers : torch::stable::to(numbers, x.device());
}

}  // namespace

Branches::Branches(const DeviceScope& device, const Tensor& x, int64_t branches, const OptionalTensor& ids,
                   const OptionalTensor& sizes)
    : on_host_(!device.cuda()),
      samples_(x.size(0)),
      branches_(branches),
      sizes_given_(device.cuda() && !ids.has_value() && sizes.has_value() && !sizes->is_cuda() &&
                   branches <= kGivenSizes),
      ids_(beside(ids, x)),
      sizes_(sizes_given_ ? as_dtype(sizes, ScalarType::Long) : beside(ids.has_value() ? std::nullopt : sizes, x)) {
  STD_TORCH_CHECK(branches >= 1, "multi_batch_norm: expected at least one branch");
  STD_TORCH_CHECK(!ids.has_value() || (ids->dim() == 1 && ids->size(0) == samples_),
                  "multi_batch_norm: branch ids must be [N]");
  STD_TORCH_CHECK(!sizes_.has_value() || sizes_->numel() == branches, "multi_batch_norm: branch sizes must be [B]");
  if ((on_host_ && sizes_.has_value()) || sizes_given_) check_sizes();
  if (on_host_) sort();
}

Branches::Branches(const DeviceScope& device, const Tensor& x)
    : on_host_(!device.cuda()), samples_(x.size(0)), branches_(x.size(0)), order_(samples_), offsets_(samples_ + 1) {
  std::iota(order_.begin(), order_.end(), 0);
  std::iota(offsets_.begin(), offsets_.end(), 0);
}

void Branches::check_sizes() const {
  int64_t left = samples_;
  for (int64_t b = 0; b < branches_; ++b) {
    const int64_t size = data<int64_t>(sizes_)[b];
    STD_TORCH_CHECK(size >= 0 && size <= left,
                    "multi_batch_norm: branch sizes must be >= 0 and add up to N = ", samples_);
    left -= size;
  }
  STD_TORCH_CHECK(left == 0, "multi_batch_norm: branch sizes must add up to N = ", samples_, ", got ", samples_ - left);
}

void Branches::sort() {
  std::vector<int64_t> branch_of(samples_, 0);
  offsets_.assign(branches_ + 1, 0);
  order_.resize(samples_);
  if (ids_.has_value()) {
    branch_of.assign(data<int64_t>(ids_), data<int64_t>(ids_) + samples_);
  } else if (sizes_.has_value()) {
    auto next = branch_of.begin();
    for (int64_t b = 0; b < branches_; ++b) next = std::fill_n(next, data<int64_t>(sizes_)[b], b);
  }
  for (const int64_t b : branch_of) {
    STD_TORCH_CHECK(b >= 0 && b < branches_, "multi_batch_norm: branch ids must be in [0, ", branches_, "), got ", b);
    ++offsets_[b + 1];
  }
  for (int64_t b = 0; b < branches_; ++b) offsets_[b + 1] += offsets_[b];
  std::vector<int64_t> next(offsets_.begin(), offsets_.end() - 1);
  for (int64_t n = 0; n < samples_; ++n) order_[next[branch_of[n]]++] = n;
}

MultiBatchNormShape Branches::shape_of(const Tensor& x, MemoryFormat format, bool training, double eps,
                                       const std::optional<std::string>& activation) {
  STD_TORCH_CHECK(!activation.has_value() || *activation == "relu",
                  "multi_batch_norm: activation must be None or 'relu'");
  MultiBatchNormShape shape{};
  shape.samples = samples_;
  shape.channels = x.size(1);
  shape.spatial = 1;
  for (int64_t axis = 2; axis < x.dim(); ++axis) shape.spatial *= x.size(axis);
  shape.branches = branches_;
  shape.channels_last = format != MemoryFormat::Contiguous;
  shape.training = training;
  shape.relu = activation.has_value();
  shape.eps = eps;
  if (on_host_) {
    shape.order = order_.data();
    shape.offsets = offsets_.data();
  } else if (x.numel() > 0) {
    shape.ids = data<int64_t>(ids_);
    (sizes_given_ ? shape.host_sizes : shape.sizes) = data<int64_t>(sizes_);
    shape.one_each = !offsets_.empty();
    const int64_t bytes = workspace_bytes(shape, static_cast<int64_t>(x.element_size()));
    workspace_ = torch::stable::new_empty(x, {bytes}, ScalarType::Byte);
    shape.workspace = mutable_data<void>(*workspace_);
  }
  return shape;
}

void check_table(const OptionalTensor& table, const char* name, int64_t branches, int64_t channels) {
  STD_TORCH_CHECK(!table.has_value() || (table->dim() == 2 && table->size(0) == branches && table->size(1) == channels),
                  "multi_batch_norm: ", name, " must be [B, C]");
}

Tensor kernel_input(const DeviceScope& device, const Tensor& tensor, MemoryFormat format) {
  const Tensor dense = in_format(tensor, format);
  const bool aligned = reinterpret_cast<uintptr_t>(dense.const_data_ptr()) % 16 == 0;
  return aligned || !device.cuda() ? dense : torch::stable::clone(dense);
}

}  // namespace mdprop
