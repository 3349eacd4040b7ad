#include "multi_batch_norm/multi_batch_norm_tables.h"

#include <algorithm>
#include <tuple>

#include "multi_batch_norm/multi_batch_norm_torch.h"

namespace mdprop {
namespace {

// moments [R, B, 2C + 1] of R parts of a batch. Returns mean, var [B, C] in the given dtype and count [B].
std::tuple<Tensor, Tensor, Tensor> merge(Tensor moments, ScalarType dtype) {
  STD_TORCH_CHECK(moments.dim() == 3 && moments.size(2) % 2 == 1,
                  "multi_batch_norm_merge: moments must be [R, B, 2C + 1]");
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double,
                  "multi_batch_norm_merge: dtype must be float32 or float64");
  const DeviceScope device(moments);
  const int64_t parts = moments.size(0), branches = moments.size(1), channels = moments.size(2) / 2;
  const Tensor wide = as_dtype(moments, ScalarType::Double);
  Tensor mean = torch::stable::new_empty(moments, {branches, channels}, dtype), var = torch::stable::empty_like(mean);
  Tensor count = torch::stable::new_empty(moments, {branches}, ScalarType::Long);
  dispatch_compute(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const MultiBatchNormMergeArgs<T> args{parts,
                                          branches,
                                          channels,
                                          data<double>(wide),
                                          mutable_data<T>(mean),
                                          mutable_data<T>(var),
                                          mutable_data<int64_t>(count)};
    MDPROP_RUN(multi_batch_norm_merge, device, args);
  });
  return {mean, var, count};
}

void check_update(const std::vector<Tensor>& running_means, const std::vector<Tensor>& running_vars,
                  const std::vector<Tensor>& num_batches, const Tensor& mean, const Tensor& var, const Tensor& count,
                  const std::optional<double>& momentum) {
  const auto branches = static_cast<int64_t>(running_means.size());
  STD_TORCH_CHECK(mean.dim() == 2, "multi_batch_norm_update_: mean must be [B, C]");
  check_device("multi_batch_norm_update_", mean, {{"var", var}, {"count", count}});
  check_table(mean, "mean", branches, mean.size(1));
  check_table(var, "var", branches, mean.size(1));
  STD_TORCH_CHECK(running_vars.size() == running_means.size() && count.numel() == branches &&
                      (num_batches.empty() || num_batches.size() == running_means.size()),
                  "multi_batch_norm_update_: expected one running_mean, running_var and count a branch");
  STD_TORCH_CHECK(momentum.has_value() || !num_batches.empty(),
                  "multi_batch_norm_update_: momentum None needs a counter of batches for each branch");
  for (size_t b = 0; b < running_means.size(); ++b) {
    for (const Tensor& running : {running_means[b], running_vars[b]}) {
      STD_TORCH_CHECK((running.scalar_type() == ScalarType::Float || running.scalar_type() == ScalarType::Double) &&
                          running.scalar_type() == running_means[0].scalar_type(),
                      "multi_batch_norm_update_: running statistics must all be float32 or all float64");
      STD_TORCH_CHECK(running.is_contiguous() && running.numel() == mean.size(1),
                      "multi_batch_norm_update_: running statistics must be dense [C]");
    }
    STD_TORCH_CHECK(num_batches.empty() || num_batches[b].scalar_type() == ScalarType::Long,
                    "multi_batch_norm_update_: counters of batches must be int64");
    check_device("multi_batch_norm_update_", mean,
                 {{"running_mean", running_means[b]}, {"running_var", running_vars[b]}});
    if (!num_batches.empty()) check_device("multi_batch_norm_update_", mean, {{"num_batches", num_batches[b]}});
  }
}

// running_means, running_vars: B tensors [C]; num_batches: B counters or none; mean, var [B, C], count [B] of forward.
void update(std::vector<Tensor> running_means, std::vector<Tensor> running_vars, std::vector<Tensor> num_batches,
            Tensor mean, Tensor var, Tensor count, std::optional<double> momentum) {
  check_update(running_means, running_vars, num_batches, mean, var, count, momentum);
  if (running_means.empty()) return;
  const DeviceScope device(mean);
  const ScalarType dtype = running_means[0].scalar_type();
  const Tensor mean_same = as_dtype(mean, dtype), var_same = as_dtype(var, dtype);
  const Tensor counts = as_dtype(count, ScalarType::Long);
  const auto branches = static_cast<int64_t>(running_means.size()), channels = mean.size(1);
  dispatch_compute(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int64_t kBranches = MultiBatchNormUpdateArgs<T>::kBranches;
    for (int64_t first = 0; first < branches; first += kBranches) {
      MultiBatchNormUpdateArgs<T> args{};
      args.branches = std::min(kBranches, branches - first);
      args.channels = channels;
      for (int64_t b = 0; b < args.branches; ++b) {
        args.running_means[b] = mutable_data<T>(running_means[first + b]);
        args.running_vars[b] = mutable_data<T>(running_vars[first + b]);
        args.num_batches[b] = num_batches.empty() ? nullptr : mutable_data<int64_t>(num_batches[first + b]);
      }
      args.mean = data<T>(mean_same) + first * channels;
      args.var = data<T>(var_same) + first * channels;
      args.count = data<int64_t>(counts) + first;
      args.cumulative = !momentum.has_value();
      args.momentum = momentum.value_or(0);
      MDPROP_RUN(multi_batch_norm_update, device, args);
    }
  });
}

}  // namespace
}  // namespace mdprop

MDPROP_REGISTER_KERNELS(module) {
  module.impl("multi_batch_norm_merge", TORCH_BOX(&mdprop::merge));
  module.impl("multi_batch_norm_update_", TORCH_BOX(&mdprop::update));
}
