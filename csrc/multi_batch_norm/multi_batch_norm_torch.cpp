#include "multi_batch_norm/multi_batch_norm.h"

#include <tuple>

#include "multi_batch_norm/multi_batch_norm_math.h"
#include "multi_batch_norm/multi_batch_norm_torch.h"

namespace mdprop {
namespace {

int64_t branch_count(std::initializer_list<const OptionalTensor*> tables, const OptionalTensor& ids) {
  for (const OptionalTensor* table : tables) {
    if (table->has_value()) return (*table)->size(0);
  }
  STD_TORCH_CHECK(!ids.has_value(), "multi_batch_norm: branch ids need weight, bias or running_mean [B, C]");
  return 1;
}

// What an empty batch gives.
void zero_all(std::initializer_list<Tensor> tables) {
  for (Tensor table : tables) torch::stable::zero_(table);
}

// x [N, C, *]; branch_ids [N] or branch_sizes [B] or neither. Returns the moments [B, 2C + 1].
Tensor statistics(Tensor x, int64_t branches, OptionalTensor branch_ids, OptionalTensor branch_sizes) {
  STD_TORCH_CHECK(x.dim() >= 2, "multi_batch_norm_statistics: x must be [N, C, *]");
  const DeviceScope device(x);
  const MemoryFormat format = kernel_format(x);
  const Tensor x_dense = kernel_input(device, x, format);
  Branches order(device, x, branches, branch_ids, branch_sizes);
  const MultiBatchNormShape shape = order.shape_of(x, format, true, 0, std::nullopt);
  Tensor moments = torch::stable::new_empty(x, {branches, 2 * x.size(1) + 1}, ScalarType::Double);
  if (x.numel() == 0) {
    zero_all({moments});
    return moments;
  }
  dispatch_floating(x.scalar_type(), "multi_batch_norm_statistics", [&](auto tag) {
    using T = typename decltype(tag)::type;
    const MultiBatchNormStatisticsArgs<T> args{shape, data<T>(x_dense), mutable_data<double>(moments)};
    MDPROP_RUN(multi_batch_norm_statistics, device, args);
  });
  return moments;
}

// x [N, C, *]; residual like x or absent; weight, bias, running_mean, running_var [B, C] or absent; branch_ids [N] or
// branch_sizes [B] or neither. Returns y like x; mean, var [B, C] as used; count [B], the values a channel of each
// branch; mask, of which nothing is kept unless there are both a residual and a relu.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> forward(Tensor x, OptionalTensor weight, OptionalTensor bias,
                                                           OptionalTensor running_mean, OptionalTensor running_var,
                                                           OptionalTensor residual, OptionalTensor branch_ids,
                                                           OptionalTensor branch_sizes, bool training, double eps,
                                                           std::optional<std::string> activation) {
  STD_TORCH_CHECK(x.dim() >= 2, "multi_batch_norm: x must be [N, C, *]");
  STD_TORCH_CHECK(training || (running_mean.has_value() && running_var.has_value()),
                  "multi_batch_norm: running_mean and running_var are needed unless training");
  STD_TORCH_CHECK(!residual.has_value() || (same_shape(*residual, x) && residual->scalar_type() == x.scalar_type()),
                  "multi_batch_norm: residual must have the shape and dtype of x");
  const int64_t branches = branch_count({&weight, &bias, &running_mean, &branch_sizes}, branch_ids),
                channels = x.size(1);
  check_table(weight, "weight", branches, channels);
  check_table(bias, "bias", branches, channels);
  check_table(running_mean, "running_mean", branches, channels);
  check_table(running_var, "running_var", branches, channels);
  check_device("multi_batch_norm", x,
               {{"weight", weight},
                {"bias", bias},
                {"running_mean", running_mean},
                {"running_var", running_var},
                {"residual", residual}});

  const DeviceScope device(x);
  const MemoryFormat format = kernel_format(x);
  const Tensor x_dense = kernel_input(device, x, format);
  OptionalTensor residual_dense;
  if (residual.has_value()) residual_dense = kernel_input(device, *residual, format);
  const ScalarType dtype = accumulate_dtype(x.scalar_type());
  const OptionalTensor weight_wide = as_dtype(weight, dtype), bias_wide = as_dtype(bias, dtype);
  Branches order(device, x, branches, branch_ids, branch_sizes);
  const MultiBatchNormShape shape = order.shape_of(x, format, training, eps, activation);

  Tensor y = torch::stable::empty_like(x_dense);
  const auto statistic = [&](const OptionalTensor& running) {
    return training ? torch::stable::new_empty(x, {branches, channels}, dtype)
                    : torch::stable::clone(as_dtype(*running, dtype));
  };
  Tensor mean = statistic(running_mean), var = statistic(running_var);
  Tensor count = torch::stable::new_empty(x, {branches}, ScalarType::Long);
  const bool wants_mask = shape.relu && residual.has_value();
  Tensor mask =
      torch::stable::new_empty(x, {wants_mask ? lines(shape) * mask_bytes_per_line(shape) : 0}, ScalarType::Byte);
  if (x.numel() == 0) {
    zero_all({count});
    if (training) zero_all({mean, var});
    return {y, mean, var, count, mask};
  }
  dispatch_floating(x.scalar_type(), "multi_batch_norm", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Acc = acc_t<T>;
    MultiBatchNormForwardArgs<T> args{};
    args.shape = shape;
    args.x = data<T>(x_dense);
    args.residual = data<T>(residual_dense);
    args.weight = data<Acc>(weight_wide);
    args.bias = data<Acc>(bias_wide);
    args.mean = mutable_data<Acc>(mean);
    args.var = mutable_data<Acc>(var);
    args.y = mutable_data<T>(y);
    args.mask = wants_mask ? mutable_data<uint8_t>(mask) : nullptr;
    args.count = mutable_data<int64_t>(count);
    MDPROP_RUN(multi_batch_norm_forward, device, args);
  });
  return {y, mean, var, count, mask};
}

// What both halves of the gradient take. grad, x [N, C, *]; mean, var [B, C] as forward returned them; mask as forward
// returned it, where it did.
struct GradientInputs {
  Tensor grad, x;
  OptionalTensor weight, bias;
  Tensor mean, var;
  OptionalTensor mask, branch_ids, branch_sizes;
  bool training;
  double eps;
  std::optional<std::string> activation;
};

// What they give; a part that is not wanted has no elements.
struct Gradients {
  Tensor x, residual, weight, bias, sums;
};

void check_inputs(const GradientInputs& in, int64_t branches, int64_t channels) {
  STD_TORCH_CHECK(same_shape(in.grad, in.x), "multi_batch_norm_backward: grad must have the shape of x");
  check_table(in.weight, "weight", branches, channels);
  check_table(in.bias, "bias", branches, channels);
  check_table(in.mean, "mean", branches, channels);
  check_table(in.var, "var", branches, channels);
  STD_TORCH_CHECK(!in.mask.has_value() || (in.activation.has_value() && in.mask->scalar_type() == ScalarType::Byte),
                  "multi_batch_norm_backward: a mask must be uint8 and needs an activation");
  check_device("multi_batch_norm_backward", in.x,
               {{"grad", in.grad},
                {"weight", in.weight},
                {"bias", in.bias},
                {"mean", in.mean},
                {"var", in.var},
                {"mask", in.mask}});
}

Gradients gradients(const GradientInputs& in, const OptionalTensor& total_sums, bool wants_x, bool wants_affine,
                    bool wants_sums) {
  STD_TORCH_CHECK(in.x.dim() >= 2 && in.mean.dim() == 2,
                  "multi_batch_norm_backward: x must be [N, C, *] and mean [B, C]");
  const Tensor& x = in.x;
  const int64_t branches = in.mean.size(0), channels = x.size(1);
  check_inputs(in, branches, channels);
  check_device("multi_batch_norm_backward", x, {{"sums", total_sums}});
  const DeviceScope device(x);
  const MemoryFormat format = kernel_format(x);
  const Tensor x_dense = kernel_input(device, x, format),
               grad_dense = kernel_input(device, grad_like(in.grad, x), format);
  const ScalarType dtype = accumulate_dtype(x.scalar_type());
  const OptionalTensor weight = as_dtype(in.weight, dtype), bias = as_dtype(in.bias, dtype),
                       totals = as_dtype(total_sums, ScalarType::Double);
  const Tensor mean = as_dtype(in.mean, dtype), var = as_dtype(in.var, dtype);
  Branches order(device, x, branches, in.branch_ids, in.branch_sizes);
  const MultiBatchNormShape shape = order.shape_of(x, format, in.training, in.eps, in.activation);
  STD_TORCH_CHECK(!in.mask.has_value() || in.mask->numel() == lines(shape) * mask_bytes_per_line(shape),
                  "multi_batch_norm_backward: mask does not fit x");
  STD_TORCH_CHECK(!totals.has_value() || totals->numel() == branches * (2 * channels + 1),
                  "multi_batch_norm_backward: sums must be [B, 2C + 1]");

  const auto like_x = [&](bool wanted) {
    return wanted ? torch::stable::empty_like(x_dense) : torch::stable::new_empty(x, {0});
  };
  const auto table = [&](bool wanted, int64_t columns, ScalarType type) {
    return wanted ? torch::stable::new_empty(x, {branches, columns}, type) : torch::stable::new_empty(x, {0}, type);
  };
  const bool wants_residual = wants_x && in.mask.has_value();
  Gradients out{like_x(wants_x), like_x(wants_residual), table(wants_affine, channels, dtype),
                table(wants_affine, channels, dtype), table(wants_sums, 2 * channels + 1, ScalarType::Double)};
  if (x.numel() == 0) {
    zero_all({out.weight, out.bias, out.sums});
    return out;
  }
  dispatch_floating(x.scalar_type(), "multi_batch_norm_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Acc = acc_t<T>;
    MultiBatchNormBackwardArgs<T> args{};
    args.shape = shape;
    args.grad = data<T>(grad_dense);
    args.x = data<T>(x_dense);
    args.mask = data<uint8_t>(in.mask);
    args.weight = data<Acc>(weight);
    args.bias = data<Acc>(bias);
    args.mean = data<Acc>(mean);
    args.var = data<Acc>(var);
    args.total_sums = data<double>(totals);
    args.sums = wants_sums ? mutable_data<double>(out.sums) : nullptr;
    args.grad_x = wants_x ? mutable_data<T>(out.x) : nullptr;
    args.grad_residual = wants_residual ? mutable_data<T>(out.residual) : nullptr;
    args.grad_weight = wants_affine ? mutable_data<Acc>(out.weight) : nullptr;
    args.grad_bias = wants_affine ? mutable_data<Acc>(out.bias) : nullptr;
    MDPROP_RUN(multi_batch_norm_backward, device, args);
  });
  return out;
}

// Returns grad_x like x; grad_residual like x, with a mask; grad_weight, grad_bias [B, C] if affine_gradients; those
// that are not given have no elements. With sums [B, 2C + 1], grad_x takes these instead of the sums of this batch.
std::tuple<Tensor, Tensor, Tensor, Tensor> backward(Tensor grad, Tensor x, OptionalTensor weight, OptionalTensor bias,
                                                    Tensor mean, Tensor var, OptionalTensor mask, OptionalTensor sums,
                                                    OptionalTensor branch_ids, OptionalTensor branch_sizes,
                                                    bool training, double eps, std::optional<std::string> activation,
                                                    bool affine_gradients) {
  const Gradients result =
      gradients({grad, x, weight, bias, mean, var, mask, branch_ids, branch_sizes, training, eps, activation}, sums,
                true, affine_gradients, false);
  return {result.x, result.residual, result.weight, result.bias};
}

// The first half of backward in training: the sums [B, 2C + 1] of this batch, and grad_weight, grad_bias [B, C].
std::tuple<Tensor, Tensor, Tensor> backward_sums(Tensor grad, Tensor x, OptionalTensor weight, OptionalTensor bias,
                                                 Tensor mean, Tensor var, OptionalTensor mask,
                                                 OptionalTensor branch_ids, OptionalTensor branch_sizes, double eps,
                                                 std::optional<std::string> activation) {
  const Gradients result =
      gradients({grad, x, weight, bias, mean, var, mask, branch_ids, branch_sizes, true, eps, activation}, std::nullopt,
                false, true, true);
  return {result.sums, result.weight, result.bias};
}

}  // namespace
}  // namespace mdprop

MDPROP_REGISTER_KERNELS(module) {
  module.impl("multi_batch_norm", TORCH_BOX(&mdprop::forward));
  module.impl("multi_batch_norm_backward", TORCH_BOX(&mdprop::backward));
  module.impl("multi_batch_norm_backward_sums", TORCH_BOX(&mdprop::backward_sums));
  module.impl("multi_batch_norm_statistics", TORCH_BOX(&mdprop::statistics));
}
