#include "multi_batch_norm/multi_batch_norm.h"

#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "common/torch_stable.h"

namespace mdprop {
namespace {

using OptionalTensor = std::optional<Tensor>;

// Which samples belong to which branch: a stable counting sort of the ids, or the running sums of the sizes.
struct Branches {
  Branches(int64_t samples, int64_t branches, const OptionalTensor& ids, const OptionalTensor& sizes)
      : order(samples), offsets(branches + 1, 0) {
    std::vector<int64_t> branch_of(samples, 0);
    if (ids.has_value()) {
      STD_TORCH_CHECK(ids->dim() == 1 && ids->size(0) == samples, "multi_batch_norm: branch ids must be [N]");
      const Tensor dense = as_dtype(*ids, ScalarType::Long);
      for (int64_t n = 0; n < samples; ++n) branch_of[n] = data<int64_t>(dense)[n];
    } else if (sizes.has_value()) {
      const Tensor dense = as_dtype(*sizes, ScalarType::Long);
      int64_t n = 0;
      for (int64_t b = 0; b < branches; ++b) {
        const int64_t size = data<int64_t>(dense)[b];
        STD_TORCH_CHECK(size >= 0 && n + size <= samples,
                        "multi_batch_norm: branch sizes must be >= 0 and add up to N");
        for (const int64_t end = n + size; n < end; ++n) branch_of[n] = b;
      }
      STD_TORCH_CHECK(n == samples, "multi_batch_norm: branch sizes must add up to N = ", samples, ", got ", n);
    }
    for (const int64_t b : branch_of) {
      STD_TORCH_CHECK(b >= 0 && b < branches, "multi_batch_norm: branch ids must be in [0, ", branches, "), got ", b);
      ++offsets[b + 1];
    }
    for (int64_t b = 0; b < branches; ++b) offsets[b + 1] += offsets[b];
    std::vector<int64_t> next(offsets.begin(), offsets.end() - 1);
    for (int64_t n = 0; n < samples; ++n) order[next[branch_of[n]]++] = n;
  }

  std::vector<int64_t> order;    // [N]
  std::vector<int64_t> offsets;  // [B + 1]
};

int64_t branch_count(const OptionalTensor& per_branch, const OptionalTensor& running_mean, const OptionalTensor& sizes,
                     const OptionalTensor& ids) {
  if (per_branch.has_value()) return per_branch->size(0);
  if (running_mean.has_value()) return running_mean->size(0);
  if (sizes.has_value()) return sizes->size(0);
  STD_TORCH_CHECK(!ids.has_value(), "multi_batch_norm: branch ids need weight or running_mean [B, C]");
  return 1;
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
  shape.branches = static_cast<int64_t>(branches.offsets.size()) - 1;
  shape.channels_last = format != MemoryFormat::Contiguous;
  shape.order = branches.order.data();
  shape.offsets = branches.offsets.data();
  shape.training = training;
  shape.relu = activation.has_value();
  shape.eps = eps;
  return shape;
}

void check_table(const OptionalTensor& table, const char* name, int64_t branches, int64_t channels) {
  STD_TORCH_CHECK(!table.has_value() || (table->dim() == 2 && table->size(0) == branches && table->size(1) == channels),
                  "multi_batch_norm: ", name, " must be [B, C]");
}

// x [N, C, *]; weight, bias, running_mean, running_var [B, C] or absent; branch_ids [N] or branch_sizes [B] or neither.
// Returns y like x; mean, var [B, C] as used; count [B], the values a channel of each branch.
std::tuple<Tensor, Tensor, Tensor, Tensor> forward(Tensor x, OptionalTensor weight, OptionalTensor bias,
                                                   OptionalTensor running_mean, OptionalTensor running_var,
                                                   OptionalTensor branch_ids, OptionalTensor branch_sizes,
                                                   bool training, double eps, std::optional<std::string> activation) {
  STD_TORCH_CHECK(x.dim() >= 2, "multi_batch_norm: x must be [N, C, *]");
  STD_TORCH_CHECK(training || (running_mean.has_value() && running_var.has_value()),
                  "multi_batch_norm: running_mean and running_var are needed unless training");
  const int64_t branches = branch_count(weight, running_mean, branch_sizes, branch_ids), channels = x.size(1);
  check_table(weight, "weight", branches, channels);
  check_table(bias, "bias", branches, channels);
  check_table(running_mean, "running_mean", branches, channels);
  check_table(running_var, "running_var", branches, channels);

  const MemoryFormat format = kernel_format(x);
  const Tensor x_dense = in_format(x, format);
  const ScalarType dtype = accumulate_dtype(x.scalar_type());
  const OptionalTensor weight_wide = as_dtype(weight, dtype), bias_wide = as_dtype(bias, dtype);
  const Branches order(x.size(0), branches, branch_ids, branch_sizes);
  const MultiBatchNormShape shape = shape_of(x, format, order, training, eps, activation);

  Tensor y = torch::stable::empty_like(x_dense);
  const auto statistic = [&](const OptionalTensor& running) {
    return training ? torch::stable::new_empty(x, {branches, channels}, dtype)
                    : torch::stable::clone(as_dtype(*running, dtype));
  };
  Tensor mean = statistic(running_mean), var = statistic(running_var);
  Tensor count = torch::stable::new_empty(x, {branches}, ScalarType::Long);
  for (int64_t b = 0; b < branches; ++b) {
    mutable_data<int64_t>(count)[b] = (order.offsets[b + 1] - order.offsets[b]) * shape.spatial;
  }
  if (x.numel() == 0) {
    if (training) {
      torch::stable::zero_(mean);
      torch::stable::zero_(var);
    }
    return {y, mean, var, count};
  }
  dispatch_floating(x.scalar_type(), "multi_batch_norm", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Acc = acc_t<T>;
    multi_batch_norm_forward_cpu<T>({shape, data<T>(x_dense), data<Acc>(weight_wide), data<Acc>(bias_wide),
                                     mutable_data<Acc>(mean), mutable_data<Acc>(var), mutable_data<T>(y)});
  });
  return {y, mean, var, count};
}

// grad, x [N, C, *]; mean, var [B, C] as forward returned them. Returns grad_x like x, grad_weight and grad_bias [B,
// C], or [0] each unless affine_gradients.
std::tuple<Tensor, Tensor, Tensor> backward(Tensor grad, Tensor x, OptionalTensor weight, OptionalTensor bias,
                                            Tensor mean, Tensor var, OptionalTensor branch_ids,
                                            OptionalTensor branch_sizes, bool training, double eps,
                                            std::optional<std::string> activation, bool affine_gradients) {
  STD_TORCH_CHECK(same_shape(grad, x), "multi_batch_norm_backward: grad must have the shape of x");
  STD_TORCH_CHECK(x.dim() >= 2 && mean.dim() == 2, "multi_batch_norm_backward: x must be [N, C, *] and mean [B, C]");
  const int64_t branches = mean.size(0), channels = x.size(1);
  check_table(weight, "weight", branches, channels);
  check_table(bias, "bias", branches, channels);
  check_table(mean, "mean", branches, channels);
  check_table(var, "var", branches, channels);
  const MemoryFormat format = kernel_format(x);
  const Tensor x_dense = in_format(x, format);
  const Tensor grad_dense =
      in_format(grad.scalar_type() == x.scalar_type() ? grad : torch::stable::to(grad, x.scalar_type()), format);
  const ScalarType dtype = accumulate_dtype(x.scalar_type());
  const OptionalTensor weight_wide = as_dtype(weight, dtype), bias_wide = as_dtype(bias, dtype);
  const Tensor mean_wide = as_dtype(mean, dtype), var_wide = as_dtype(var, dtype);
  const Branches order(x.size(0), branches, branch_ids, branch_sizes);
  const MultiBatchNormShape shape = shape_of(x, format, order, training, eps, activation);

  Tensor grad_x = torch::stable::empty_like(x_dense);
  const auto table = [&] {
    return affine_gradients ? torch::stable::new_empty(mean_wide, {branches, channels})
                            : torch::stable::new_empty(mean_wide, {0});
  };
  Tensor grad_weight = table(), grad_bias = table();
  if (x.numel() == 0) {
    torch::stable::zero_(grad_weight);
    torch::stable::zero_(grad_bias);
    return {grad_x, grad_weight, grad_bias};
  }
  dispatch_floating(x.scalar_type(), "multi_batch_norm_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Acc = acc_t<T>;
    multi_batch_norm_backward_cpu<T>({shape, data<T>(grad_dense), data<T>(x_dense), data<Acc>(weight_wide),
                                      data<Acc>(bias_wide), data<Acc>(mean_wide), data<Acc>(var_wide),
                                      mutable_data<T>(grad_x),
                                      affine_gradients ? mutable_data<Acc>(grad_weight) : nullptr,
                                      affine_gradients ? mutable_data<Acc>(grad_bias) : nullptr});
  });
  return {grad_x, grad_weight, grad_bias};
}

// running += share * (value - running) for every channel of a branch.
template <typename Running, typename Value>
void move_towards(const Tensor& running, const Value* values, double scale, double share) {
  Running* target = mutable_data<Running>(running);
  for (int64_t c = 0; c < running.numel(); ++c) {
    target[c] = static_cast<Running>((1.0 - share) * target[c] + share * scale * values[c]);
  }
}

// running_means, running_vars: B tensors [C]; num_batches: B counters or none; mean, var [B, C], count [B] of forward.
void update(std::vector<Tensor> running_means, std::vector<Tensor> running_vars, std::vector<Tensor> num_batches,
            Tensor mean, Tensor var, Tensor count, std::optional<double> momentum) {
  const auto branches = static_cast<int64_t>(running_means.size());
  STD_TORCH_CHECK(mean.dim() == 2, "multi_batch_norm_update_: mean must be [B, C]");
  const int64_t channels = mean.size(1);
  check_table(mean, "mean", branches, channels);
  check_table(var, "var", branches, channels);
  STD_TORCH_CHECK(running_vars.size() == running_means.size() && count.numel() == branches &&
                      (num_batches.empty() || num_batches.size() == running_means.size()),
                  "multi_batch_norm_update_: expected one running_mean, running_var and count a branch");
  const Tensor mean_wide = as_dtype(mean, ScalarType::Double), var_wide = as_dtype(var, ScalarType::Double);
  const Tensor counts = as_dtype(count, ScalarType::Long);
  for (size_t b = 0; b < running_means.size(); ++b) {
    const int64_t values = data<int64_t>(counts)[b];
    if (values == 0) continue;
    double share = momentum.value_or(0);
    if (!num_batches.empty()) {
      const int64_t batches = ++*mutable_data<int64_t>(num_batches[b]);
      if (!momentum.has_value()) share = 1.0 / static_cast<double>(batches);
    }
    const double unbiased = values > 1 ? static_cast<double>(values) / static_cast<double>(values - 1) : 1.0;
    const ScalarType dtype = running_means[b].scalar_type();
    STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double,
                    "multi_batch_norm_update_: running statistics must be float32 or float64");
    STD_TORCH_CHECK(running_means[b].is_contiguous() && running_vars[b].is_contiguous() &&
                        running_means[b].numel() == channels && running_vars[b].numel() == channels,
                    "multi_batch_norm_update_: running statistics must be dense [C]");
    const double* means = data<double>(mean_wide) + b * channels;
    const double* vars = data<double>(var_wide) + b * channels;
    if (dtype == ScalarType::Double) {
      move_towards<double>(running_means[b], means, 1.0, share);
      move_towards<double>(running_vars[b], vars, unbiased, share);
    } else {
      move_towards<float>(running_means[b], means, 1.0, share);
      move_towards<float>(running_vars[b], vars, unbiased, share);
    }
  }
}

}  // namespace
}  // namespace mdprop

STABLE_TORCH_LIBRARY_IMPL(mdprop, CPU, module) {
  module.impl("multi_batch_norm", TORCH_BOX(&mdprop::forward));
  module.impl("multi_batch_norm_backward", TORCH_BOX(&mdprop::backward));
  module.impl("multi_batch_norm_update_", TORCH_BOX(&mdprop::update));
}
