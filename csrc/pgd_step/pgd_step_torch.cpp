#include "pgd_step/pgd_step.h"

#include <string>

#include "common/torch_device.h"
#include "common/torch_stable.h"
#include "pgd_step/pgd_step_plan.h"

namespace mdprop {
namespace {

PgdNorm norm_by_name(const std::string& norm) {
  STD_TORCH_CHECK(norm == "linf" || norm == "l2" || norm == "l1", "norm: expected 'linf', 'l2' or 'l1', got '", norm,
                  "'");
  return norm == "linf" ? PgdNorm::kLinf : norm == "l2" ? PgdNorm::kL2 : PgdNorm::kL1;
}

// Whether `tensor` is [N, *] or [1, *] where x is [N, *].
bool spreads_to(const Tensor& tensor, const Tensor& x) {
  if (tensor.dim() != x.dim() || (tensor.size(0) != x.size(0) && tensor.size(0) != 1)) return false;
  for (int64_t axis = 1; axis < x.dim(); ++axis) {
    if (tensor.size(axis) != x.size(axis)) return false;
  }
  return true;
}

// The stride from sample to sample of such a tensor in a dense format.
int64_t sample_stride(const Tensor& tensor, const Tensor& x) { return tensor.size(0) == 1 ? 0 : x.numel() / x.size(0); }

// One value a sample: fp64 [N], or null where there is no tensor and the number counts.
std::optional<Tensor> per_sample(const char* name, const std::optional<Tensor>& tensor, const Tensor& x) {
  STD_TORCH_CHECK(!tensor.has_value() || tensor->numel() == x.size(0), name, ": expected [N]");
  return as_dtype(tensor, ScalarType::Double);
}

// The bounds of the box as tensors [N, *] or [1, *], in the compute type; both or none.
struct BoxTensors {
  std::optional<Tensor> lower, upper;

  BoxTensors(const std::optional<Tensor>& lower_bound, const std::optional<Tensor>& upper_bound, const Tensor& x,
             MemoryFormat format) {
    STD_TORCH_CHECK(lower_bound.has_value() == upper_bound.has_value(), "lower, upper: expected two tensors or none");
    if (!lower_bound.has_value()) return;
    STD_TORCH_CHECK(spreads_to(*lower_bound, x) && same_shape(*lower_bound, *upper_bound),
                    "lower, upper: expected [N, *] or [1, *], both alike");
    const ScalarType dtype = accumulate_dtype(x.scalar_type());
    lower = in_format(torch::stable::to(*lower_bound, dtype), format);
    upper = in_format(torch::stable::to(*upper_bound, dtype), format);
  }

  template <typename T, template <typename> typename Args>
  void fill(Args<T>& args, double lower_number, double upper_number, const Tensor& x) const {
    args.lower_bounds = data<acc_t<T>>(lower);
    args.upper_bounds = data<acc_t<T>>(upper);
    args.lower = static_cast<acc_t<T>>(lower_number);
    args.upper = static_cast<acc_t<T>>(upper_number);
    args.bound_sample_stride = lower.has_value() ? sample_stride(*lower, x) : 0;
  }
};

// Scratch memory on the device of x, or null.
struct Workspace {
  std::optional<Tensor> memory;

  Workspace(const DeviceScope& device, int64_t bytes, const Tensor& x) {
    if (device.cuda() && bytes > 0) memory = torch::stable::new_empty(x, {bytes}, ScalarType::Byte);
  }
  unsigned char* get() const { return memory.has_value() ? mutable_data<unsigned char>(*memory) : nullptr; }
};

// Tensors that are written must have the layout of the kernel, since a copy would be written instead.
void check_written(const char* name, const Tensor& tensor, const Tensor& x, MemoryFormat format) {
  STD_TORCH_CHECK(same_shape(tensor, x), name, ": expected the shape of x");
  STD_TORCH_CHECK(in_format(tensor, format).const_data_ptr() == tensor.const_data_ptr(), name,
                  ": expected a dense tensor in the memory format of x");
}

void check_inputs(const Tensor& x, const Tensor& grad, const Tensor& origin) {
  STD_TORCH_CHECK(x.dim() >= 1, "x: expected [N, *]");
  STD_TORCH_CHECK(same_shape(x, grad) && same_shape(x, origin), "x, grad, origin: expected one shape");
  STD_TORCH_CHECK(grad.scalar_type() == x.scalar_type(), "grad: expected the dtype of x");
  STD_TORCH_CHECK(origin.scalar_type() == x.scalar_type() || origin.scalar_type() == ScalarType::Byte,
                  "origin: expected the dtype of x or uint8");
}

template <typename T>
void set_output(PgdStepArgs<T>& args, const Tensor& out, const Tensor& x) {
  args.out = out.scalar_type() == x.scalar_type() ? mutable_data<T>(out) : nullptr;
  args.out_bfloat16 = nullptr;
  args.out_half = nullptr;
  if (args.out != nullptr) return;
  const bool bfloat16 = out.scalar_type() == ScalarType::BFloat16;
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float && (bfloat16 || out.scalar_type() == ScalarType::Half),
                  "out: expected the dtype of x, or bfloat16 or float16 for float32 x");
  if (bfloat16) {
    args.out_bfloat16 = mutable_data<BFloat16>(out);
  } else {
    args.out_half = mutable_data<Half>(out);
  }
}

// x, grad, origin, out [N, *]; steps, radii [N] or absent, then the numbers count; bounds and mask [N, *] or [1, *] or
// absent; active [N] or absent; velocity like x or absent. Writes out and velocity.
void pgd_step_out(Tensor x, Tensor grad, Tensor origin, std::string norm, double step, std::optional<Tensor> steps,
                  double radius, std::optional<Tensor> radii, double lower, std::optional<Tensor> lower_bound,
                  double upper, std::optional<Tensor> upper_bound, std::optional<Tensor> active,
                  std::optional<Tensor> mask, std::optional<Tensor> velocity, double decay, Tensor out) {
  check_inputs(x, grad, origin);
  const MemoryFormat format = kernel_format(x);
  check_written("out", out, x, format);
  if (velocity.has_value()) {
    check_written("velocity", *velocity, x, format);
    STD_TORCH_CHECK(velocity->scalar_type() == x.scalar_type(), "velocity: expected the dtype of x");
  }
  STD_TORCH_CHECK(!active.has_value() || active->numel() == x.size(0), "active: expected [N]");
  STD_TORCH_CHECK(!mask.has_value() || spreads_to(*mask, x), "mask: expected [N, *] or [1, *]");
  check_device("pgd_step", x,
               {{"grad", grad},
                {"origin", origin},
                {"step", steps},
                {"radius", radii},
                {"lower", lower_bound},
                {"upper", upper_bound},
                {"active", active},
                {"mask", mask},
                {"velocity", velocity},
                {"out", out}});
  if (x.numel() == 0) return;

  const DeviceScope device(x);
  const Tensor x_dense = in_format(x, format), grad_dense = in_format(grad, format),
               origin_dense = in_format(origin, format);
  const std::optional<Tensor> step_values = per_sample("step", steps, x),
                              radius_values = per_sample("radius", radii, x);
  const std::optional<Tensor> active_dense = as_dtype(active, ScalarType::Bool);
  std::optional<Tensor> mask_dense;
  if (mask.has_value()) mask_dense = in_format(torch::stable::to(*mask, ScalarType::Bool), format);
  const BoxTensors box(lower_bound, upper_bound, x, format);
  const int64_t samples = x.size(0), sample_size = x.numel() / samples;
  const Workspace workspace(device, pgd_step_workspace(samples, sample_size), x);

  dispatch_floating(x.scalar_type(), "pgd_step", [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool bytes = origin.scalar_type() == ScalarType::Byte;
    PgdStepArgs<T> args;
    args.x = data<T>(x_dense);
    args.grad = data<T>(grad_dense);
    args.origin = bytes ? nullptr : data<T>(origin_dense);
    args.origin_bytes = bytes ? data<uint8_t>(origin_dense) : nullptr;
    args.velocity = velocity.has_value() ? mutable_data<T>(*velocity) : nullptr;
    set_output(args, out, x);
    args.steps = data<double>(step_values);
    args.radii = data<double>(radius_values);
    args.step = step;
    args.radius = radius;
    args.decay = decay;
    box.fill(args, lower, upper, x);
    args.active = data<uint8_t>(active_dense);
    args.mask = data<uint8_t>(mask_dense);
    args.mask_sample_stride = mask.has_value() ? sample_stride(*mask, x) : 0;
    args.workspace = workspace.get();
    args.samples = samples;
    args.sample_size = sample_size;
    args.norm = norm_by_name(norm);
    MDPROP_RUN(pgd_step, device, args);
  });
}

Tensor pgd_step_tensor(Tensor x, Tensor grad, Tensor origin, std::string norm, double step, std::optional<Tensor> steps,
                       double radius, std::optional<Tensor> radii, double lower, std::optional<Tensor> lower_bound,
                       double upper, std::optional<Tensor> upper_bound, std::optional<Tensor> active,
                       std::optional<Tensor> mask) {
  const DeviceScope device(x);
  const Tensor out = torch::stable::empty_like(in_format(x, kernel_format(x)));
  pgd_step_out(x, grad, origin, norm, step, steps, radius, radii, lower, lower_bound, upper, upper_bound, active, mask,
               std::nullopt, 1.0, out);
  return out;
}

// origin [N, *]; radii and bounds as above.
Tensor random_start_tensor(Tensor origin, std::string norm, double radius, std::optional<Tensor> radii, double lower,
                           std::optional<Tensor> lower_bound, double upper, std::optional<Tensor> upper_bound,
                           int64_t seed, int64_t offset) {
  STD_TORCH_CHECK(origin.dim() >= 1, "origin: expected [N, *]");
  check_device("random_start", origin, {{"radius", radii}, {"lower", lower_bound}, {"upper", upper_bound}});
  const DeviceScope device(origin);
  // Values are numbered in the order of a contiguous tensor: the same noise in every memory format.
  const Tensor dense = in_format(origin, MemoryFormat::Contiguous);
  const Tensor out = torch::stable::empty_like(dense);
  if (origin.numel() == 0) return in_format(out, kernel_format(origin));
  const int64_t samples = origin.size(0), sample_size = origin.numel() / samples;
  STD_TORCH_CHECK(samples < int64_t{1} << 32 && sample_size < (int64_t{1} << 34) - 4,
                  "origin: expected less than 2^32 samples of less than 2^34 - 4 values");
  const std::optional<Tensor> radius_values = per_sample("radius", radii, origin);
  const BoxTensors box(lower_bound, upper_bound, origin, MemoryFormat::Contiguous);
  const PgdNorm norm_value = norm_by_name(norm);
  const Workspace workspace(device, random_start_workspace(norm_value, samples, sample_size), origin);
  dispatch_floating(origin.scalar_type(), "random_start", [&](auto tag) {
    using T = typename decltype(tag)::type;
    RandomStartArgs<T> args;
    args.origin = data<T>(dense);
    args.out = mutable_data<T>(out);
    args.radii = data<double>(radius_values);
    args.radius = radius;
    box.fill(args, lower, upper, origin);
    args.workspace = workspace.get();
    args.samples = samples;
    args.sample_size = sample_size;
    args.seed = static_cast<uint64_t>(seed);
    args.offset = static_cast<uint64_t>(offset);
    args.norm = norm_value;
    MDPROP_RUN(random_start, device, args);
  });
  return in_format(out, kernel_format(origin));
}

}  // namespace
}  // namespace mdprop

MDPROP_REGISTER_KERNELS(module) {
  module.impl("pgd_step", TORCH_BOX(&mdprop::pgd_step_tensor));
  module.impl("pgd_step_out", TORCH_BOX(&mdprop::pgd_step_out));
  module.impl("random_start", TORCH_BOX(&mdprop::random_start_tensor));
}
