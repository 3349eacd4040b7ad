// A mixture of branches is multi_batch_norm with one branch a sample, whose affine parameters are mixed beforehand.
#include "multi_batch_norm/multi_batch_norm.h"

#include <tuple>

#include "multi_batch_norm/multi_batch_norm_tables.h"
#include "multi_batch_norm/multi_batch_norm_torch.h"

namespace mdprop {
namespace {

// The tables of a mixture as the kernels read them, and its affine maps [N, C].
struct Mixture {
  Mixture(const Tensor& x, const OptionalTensor& weight_given, const OptionalTensor& bias_given,
          const Tensor& mean_given, const Tensor& var_given, const Tensor& probs_given, double eps_given)
      : dtype(accumulate_dtype(x.scalar_type())),
        weight(as_dtype(weight_given, dtype)),
        bias(as_dtype(bias_given, dtype)),
        mean(as_dtype(mean_given, dtype)),
        var(as_dtype(var_given, dtype)),
        probs(as_dtype(probs_given, dtype)),
        eps(eps_given) {
    STD_TORCH_CHECK(x.dim() >= 2 && probs.dim() == 2 && probs.size(0) == x.size(0),
                    "multi_batch_norm_mixture: expected x [N, C, *] and probs [N, B]");
    check_table(weight, "weight", probs.size(1), x.size(1));
    check_table(bias, "bias", probs.size(1), x.size(1));
    check_table(mean, "running_mean", probs.size(1), x.size(1));
    check_table(var, "running_var", probs.size(1), x.size(1));
    check_device("multi_batch_norm_mixture", x,
                 {{"weight", weight}, {"bias", bias}, {"running_mean", mean}, {"running_var", var}, {"probs", probs}});
    centre = torch::stable::new_empty(mean, {x.size(0), x.size(1)});
    scale = torch::stable::empty_like(centre);
    shift = torch::stable::empty_like(centre);
  }

  template <typename Acc>
  MultiBatchNormMixArgs<Acc> args() const {
    return {probs.size(0),
            probs.size(1),
            mean.size(1),
            data<Acc>(weight),
            data<Acc>(bias),
            data<Acc>(mean),
            data<Acc>(var),
            data<Acc>(probs),
            eps,
            mutable_data<Acc>(centre),
            mutable_data<Acc>(scale),
            mutable_data<Acc>(shift)};
  }

  ScalarType dtype;
  OptionalTensor weight, bias;  // [B, C]
  Tensor mean, var, probs;      // [B, C], [B, C], [N, B]
  double eps;
  Tensor centre, scale, shift;  // [N, C]
};

// x [N, C, *]; weight, bias [B, C] or absent; running_mean, running_var [B, C]; probs [N, B]. Returns y like x.
Tensor mixture(Tensor x, OptionalTensor weight, OptionalTensor bias, Tensor running_mean, Tensor running_var,
               Tensor probs, double eps) {
  const Mixture tables(x, weight, bias, running_mean, running_var, probs, eps);
  const DeviceScope device(x);
  const MemoryFormat format = kernel_format(x);
  const Tensor x_dense = kernel_input(device, x, format);
  Tensor y = torch::stable::empty_like(x_dense);
  if (x.numel() == 0) return y;
  Branches branches(device, x);
  const MultiBatchNormShape shape = branches.shape_of(x, format, false, 0, std::nullopt);
  dispatch_floating(x.scalar_type(), "multi_batch_norm_mixture", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Acc = acc_t<T>;
    const auto mix = tables.args<Acc>();
    MDPROP_RUN(multi_batch_norm_mix, device, mix);
    MultiBatchNormForwardArgs<T> args{};
    args.shape = shape;
    args.x = data<T>(x_dense);
    args.weight = mix.scale;
    args.bias = mix.shift;
    args.mean = mix.centre;
    args.y = mutable_data<T>(y);
    MDPROP_RUN(multi_batch_norm_forward, device, args);
  });
  return y;
}

// Returns grad_x like x; grad_weight, grad_bias [B, C] and grad_probs [N, B], or no elements unless table_gradients.
std::tuple<Tensor, Tensor, Tensor, Tensor> mixture_backward(Tensor grad, Tensor x, OptionalTensor weight,
                                                            OptionalTensor bias, Tensor running_mean,
                                                            Tensor running_var, Tensor probs, double eps,
                                                            bool table_gradients) {
  STD_TORCH_CHECK(same_shape(grad, x), "multi_batch_norm_mixture_backward: grad must have the shape of x");
  check_device("multi_batch_norm_mixture_backward", x, {{"grad", grad}});
  const Mixture tables(x, weight, bias, running_mean, running_var, probs, eps);
  const DeviceScope device(x);
  const MemoryFormat format = kernel_format(x);
  const Tensor x_dense = kernel_input(device, x, format), grad_dense = kernel_input(device, grad_like(grad, x), format);
  Tensor grad_x = torch::stable::empty_like(x_dense);
  const auto table = [&](const Tensor& like) {
    return table_gradients ? torch::stable::empty_like(like) : torch::stable::new_empty(like, {0});
  };
  Tensor grad_weight = table(tables.mean), grad_bias = table(tables.mean), grad_probs = table(tables.probs);
  Tensor grad_scale = table(tables.scale), grad_shift = table(tables.shift);
  if (x.numel() == 0) {
    for (Tensor empty : {grad_weight, grad_bias, grad_probs}) torch::stable::zero_(empty);
    return {grad_x, grad_weight, grad_bias, grad_probs};
  }
  Branches branches(device, x);
  const MultiBatchNormShape shape = branches.shape_of(x, format, false, 0, std::nullopt);
  dispatch_floating(x.scalar_type(), "multi_batch_norm_mixture_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Acc = acc_t<T>;
    const auto mix = tables.args<Acc>();
    MDPROP_RUN(multi_batch_norm_mix, device, mix);
    MultiBatchNormBackwardArgs<T> args{};
    args.shape = shape;
    args.grad = data<T>(grad_dense);
    args.x = data<T>(x_dense);
    args.weight = mix.scale;
    args.mean = mix.centre;
    args.grad_x = mutable_data<T>(grad_x);
    if (table_gradients) {
      args.grad_weight = mutable_data<Acc>(grad_scale);
      args.grad_bias = mutable_data<Acc>(grad_shift);
    }
    MDPROP_RUN(multi_batch_norm_backward, device, args);
    if (table_gradients) {
      const MultiBatchNormUnmixArgs<Acc> unmix{mix,
                                               data<Acc>(grad_scale),
                                               data<Acc>(grad_shift),
                                               mutable_data<Acc>(grad_weight),
                                               mutable_data<Acc>(grad_bias),
                                               mutable_data<Acc>(grad_probs)};
      MDPROP_RUN(multi_batch_norm_unmix, device, unmix);
    }
  });
  return {grad_x, grad_weight, grad_bias, grad_probs};
}

}  // namespace
}  // namespace mdprop

MDPROP_REGISTER_KERNELS(module) {
  module.impl("multi_batch_norm_mixture", TORCH_BOX(&mdprop::mixture));
  module.impl("multi_batch_norm_mixture_backward", TORCH_BOX(&mdprop::mixture_backward));
}
