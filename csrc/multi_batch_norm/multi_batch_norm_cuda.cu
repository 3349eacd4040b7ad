// multi_batch_norm on a card. Each call finds out the branches in a first small kernel and then takes one of two routes
// (multi_batch_norm_plan.h): resident, where one block holds a branch's values of some channels, or streaming, with one
// kernel for the sums of chunks, one that joins them and one for the results. Clusters that hold more than one block
// would widen the first route; they wait for a card to be measured on.
#include "multi_batch_norm/multi_batch_norm.h"

#include <algorithm>

#include "common/launch.h"
#include "multi_batch_norm/multi_batch_norm_backward.cuh"
#include "multi_batch_norm/multi_batch_norm_branches.cuh"
#include "multi_batch_norm/multi_batch_norm_forward.cuh"

namespace mdprop {
namespace {

// Calls body(std::integral_constant<int, width>) for the widths that vector_width gives.
template <typename T, typename Body>
void with_width(int width, const Body& body) {
  constexpr int kWidest = 16 / static_cast<int>(sizeof(T));
  if constexpr (sizeof(T) < 8) {
    if (width == kWidest) return body(std::integral_constant<int, kWidest>{});
  }
  if constexpr (sizeof(T) == 2) {
    if (width == 4) return body(std::integral_constant<int, 4>{});
  }
  body(std::integral_constant<int, 1>{});
}

// Points the shape at its workspace and fills in the branches.
void find_branches(MultiBatchNormShape& shape, const MultiBatchNormWorkspace& workspace, int64_t* count, void* stream) {
  shape.order = workspace.order;
  shape.offsets = workspace.offsets;
  GivenSizes given{};
  if (shape.host_sizes != nullptr) std::copy_n(shape.host_sizes, shape.branches, given.sizes);
  launch<norm_branches_kernel>(static_cast<unsigned>(shape.branches), kNormThreads, 0, stream, shape, given, count);
}

// Blocks of the resident route, and of the streaming one.
unsigned blocks_of(const MultiBatchNormShape& shape, const MultiBatchNormPlan& plan) {
  return static_cast<unsigned>((plan.kept > 0 ? shape.branches : plan.max_chunks) * plan.slabs);
}

// With y null the statistics alone are computed: to `moments`, or else to args.mean and args.var.
template <typename T>
void run_forward(const MultiBatchNormForwardArgs<T>& args, double* moments, void* stream) {
  MultiBatchNormPlan plan = plan_of(args.shape, sizeof(T), 1);
  if (!args.shape.training) plan.kept = 0;
  const MultiBatchNormWorkspace workspace(args.shape);
  NormForwardJob<T> job{args, plan, moments, workspace.partials};
  find_branches(job.args.shape, workspace, args.count, stream);
  const unsigned blocks = blocks_of(args.shape, plan);
  const auto shared = static_cast<size_t>(plan.kept) * kNormThreads * plan.width * sizeof(T);
  with_width<T>(plan.width, [&](auto width) {
    if (plan.kept > 0) {
      launch<norm_resident_kernel<T, width()>>(blocks, kNormThreads, shared, stream, job);
      return;
    }
    if (args.shape.training) {
      launch<norm_statistics_kernel<T, width()>>(blocks, kNormThreads, 0, stream, job);
      launch<norm_join_moments_kernel<T>>(static_cast<unsigned>(join_blocks(args.shape)), kNormThreads, 0, stream, job);
    }
    if (args.y != nullptr) launch<norm_apply_kernel<T, width()>>(blocks, kNormThreads, 0, stream, job);
  });
}

}  // namespace

template <typename T>
void multi_batch_norm_statistics_cuda(const MultiBatchNormStatisticsArgs<T>& args, void* stream) {
  MultiBatchNormForwardArgs<T> forward{};
  forward.shape = args.shape;
  forward.shape.training = true;
  forward.x = args.x;
  run_forward(forward, args.moments, stream);
}

template <typename T>
void multi_batch_norm_forward_cuda(const MultiBatchNormForwardArgs<T>& args, void* stream) {
  run_forward(args, nullptr, stream);
}

template <typename T>
void multi_batch_norm_backward_cuda(const MultiBatchNormBackwardArgs<T>& args, void* stream) {
  MultiBatchNormPlan plan = plan_of(args.shape, sizeof(T), 2);
  const bool needs_sums =
      args.sums != nullptr || args.grad_weight != nullptr || (args.shape.training && args.total_sums == nullptr);
  if (!needs_sums) plan.kept = 0;
  const MultiBatchNormWorkspace workspace(args.shape);
  NormBackwardJob<T> job{args, plan, args.sums == nullptr ? workspace.sums : args.sums, workspace.partials};
  find_branches(job.args.shape, workspace, nullptr, stream);
  const unsigned blocks = blocks_of(args.shape, plan);
  const auto shared = static_cast<size_t>(plan.kept) * 2 * kNormThreads * plan.width * sizeof(T);
  with_width<T>(plan.width, [&](auto width) {
    if (plan.kept > 0) {
      launch<norm_resident_gradient_kernel<T, width()>>(blocks, kNormThreads, shared, stream, job);
      return;
    }
    if (needs_sums) {
      launch<norm_sums_kernel<T, width()>>(blocks, kNormThreads, 0, stream, job);
      launch<norm_join_sums_kernel<T>>(static_cast<unsigned>(join_blocks(args.shape)), kNormThreads, 0, stream, job);
    }
    if (args.grad_x != nullptr) launch<norm_gradient_kernel<T, width()>>(blocks, kNormThreads, 0, stream, job);
  });
}

#define MDPROP_INSTANTIATE(T)                                                                       \
  template void multi_batch_norm_statistics_cuda<T>(const MultiBatchNormStatisticsArgs<T>&, void*); \
  template void multi_batch_norm_forward_cuda<T>(const MultiBatchNormForwardArgs<T>&, void*);       \
  template void multi_batch_norm_backward_cuda<T>(const MultiBatchNormBackwardArgs<T>&, void*);
MDPROP_INSTANTIATE(float)
MDPROP_INSTANTIATE(double)
MDPROP_INSTANTIATE(BFloat16)
MDPROP_INSTANTIATE(Half)

}  // namespace mdprop
