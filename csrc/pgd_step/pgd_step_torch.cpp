#include "pgd_step/pgd_step.h"

#include <string>

#include "common/torch_stable.h"

namespace mdprop {
namespace {

// A value a sample: the tensor [N] if given, else the number with stride 0.
struct PerSample {
  PerSample(double number, const std::optional<Tensor>& tensor)
      : number_(number), tensor_(as_dtype(tensor, ScalarType::Double)) {}
  const double* values() const { return tensor_.has_value() ? data<double>(*tensor_) : &number_; }
  int64_t stride() const { return tensor_.has_value() ? 1 : 0; }

 private:
  double number_;
  std::optional<Tensor> tensor_;
};

// x, grad, origin [N, *]; steps, radii [N] or absent; lower_bound, upper_bound like x or absent, then the numbers
// count.
Tensor pgd_step_tensor(Tensor x, Tensor grad, Tensor origin, std::string norm, double step, std::optional<Tensor> steps,
                       double radius, std::optional<Tensor> radii, double lower, std::optional<Tensor> lower_bound,
                       double upper, std::optional<Tensor> upper_bound) {
  STD_TORCH_CHECK(same_shape(x, grad) && same_shape(x, origin), "pgd_step: x, grad and origin must have one shape");
  STD_TORCH_CHECK(x.scalar_type() == grad.scalar_type() && x.scalar_type() == origin.scalar_type(),
                  "pgd_step: x, grad and origin must have one dtype");
  STD_TORCH_CHECK(norm == "linf" || norm == "l2", "pgd_step: norm must be 'linf' or 'l2', got '", norm, "'");
  STD_TORCH_CHECK(lower_bound.has_value() == upper_bound.has_value(), "pgd_step: give both bounds as tensors, or none");
  STD_TORCH_CHECK(x.dim() >= 1, "pgd_step: x must be [N, *]");
  const int64_t samples = x.size(0);
  for (const auto& values : {steps, radii}) {
    STD_TORCH_CHECK(!values.has_value() || values->numel() == samples, "pgd_step: steps and radii must be [N]");
  }

  const MemoryFormat format = kernel_format(x);
  const Tensor x_dense = in_format(x, format), grad_dense = in_format(grad, format),
               origin_dense = in_format(origin, format);
  Tensor out = torch::stable::empty_like(x_dense);
  if (x.numel() == 0) return out;
  const PerSample step_values(step, steps), radius_values(radius, radii);

  dispatch_floating(x.scalar_type(), "pgd_step", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Acc = acc_t<T>;
    const Acc lower_value = static_cast<Acc>(lower), upper_value = static_cast<Acc>(upper);
    std::optional<Tensor> lower_dense, upper_dense;
    if (lower_bound.has_value()) {
      const ScalarType dtype = accumulate_dtype(x.scalar_type());
      lower_dense = in_format(torch::stable::to(*lower_bound, dtype), format);
      upper_dense = in_format(torch::stable::to(*upper_bound, dtype), format);
      STD_TORCH_CHECK(same_shape(x, *lower_dense) && same_shape(x, *upper_dense), "pgd_step: bounds must be like x");
    }
    PgdStepArgs<T> args;
    args.x = data<T>(x_dense);
    args.grad = data<T>(grad_dense);
    args.origin = data<T>(origin_dense);
    args.out = mutable_data<T>(out);
    args.step = step_values.values();
    args.step_stride = step_values.stride();
    args.radius = radius_values.values();
    args.radius_stride = radius_values.stride();
    args.lower = lower_dense.has_value() ? data<Acc>(*lower_dense) : &lower_value;
    args.upper = upper_dense.has_value() ? data<Acc>(*upper_dense) : &upper_value;
    args.bound_stride = lower_dense.has_value() ? 1 : 0;
    args.samples = samples;
    args.sample_size = x.numel() / samples;
    args.norm = norm == "l2" ? PgdNorm::kL2 : PgdNorm::kLinf;
    pgd_step_cpu(args);
  });
  return out;
}

}  // namespace
}  // namespace mdprop

STABLE_TORCH_LIBRARY_IMPL(mdprop, CPU, module) { module.impl("pgd_step", TORCH_BOX(&mdprop::pgd_step_tensor)); }
