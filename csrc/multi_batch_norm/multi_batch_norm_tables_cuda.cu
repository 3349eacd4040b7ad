// Tables of a few thousand values: a thread an entry, or a warp where an entry is a sum.
#include "multi_batch_norm/multi_batch_norm_tables.h"

#include "common/device.cuh"
#include "common/launch.h"
#include "multi_batch_norm/multi_batch_norm_tables_math.h"

namespace mdprop {
namespace {

constexpr int kThreads = 256;

unsigned blocks_for(int64_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); }

__device__ int64_t thread_number() { return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; }

// A thread a (branch, channel).
template <typename T>
__global__ void __launch_bounds__(kThreads, 2)
    norm_merge_kernel(const __grid_constant__ MultiBatchNormMergeArgs<T> args) {
  const int64_t at = thread_number(), branch = at / args.channels, channel = at % args.channels;
  if (branch >= args.branches) return;
  const Moments moments = merged_moments(args, branch, channel);
  args.mean[at] = static_cast<T>(moments.mean);
  args.var[at] = static_cast<T>(moments.count > 0 ? moments.m2 / moments.count : 0);
  if (channel == 0) args.count[branch] = static_cast<int64_t>(moments.count);
}

// A block a branch: all of its threads read the counter before one of them moves it on.
template <typename T>
__global__ void __launch_bounds__(kThreads, 2)
    norm_update_kernel(const __grid_constant__ MultiBatchNormUpdateArgs<T> args) {
  const int64_t branch = blockIdx.x, count = args.count[branch];
  if (count == 0) return;
  int64_t* counter = args.num_batches[branch];
  const int64_t batches = counter == nullptr ? 1 : *counter + 1;
  __syncthreads();
  if (counter != nullptr && threadIdx.x == 0) *counter = batches;
  const double share = batch_share(args.cumulative, args.momentum, batches), unbiased = unbiased_factor(count);
  for (int64_t c = threadIdx.x; c < args.channels; c += kThreads) {
    const int64_t at = branch * args.channels + c;
    T& mean = args.running_means[branch][c];
    T& var = args.running_vars[branch][c];
    mean = moved_towards(mean, args.mean[at], share);
    var = moved_towards(var, unbiased * args.var[at], share);
  }
}

template <typename T>
__device__ Affine<T> map_of(const MultiBatchNormMixArgs<T>& args, int64_t branch, int64_t channel) {
  return affine_at<T>(args.weight, args.bias, args.mean, args.var, args.eps, branch * args.channels + channel);
}

// A thread a (sample, channel).
template <typename T>
__global__ void __launch_bounds__(kThreads, 2) norm_mix_kernel(const __grid_constant__ MultiBatchNormMixArgs<T> args) {
  const int64_t at = thread_number(), sample = at / args.channels, channel = at % args.channels;
  if (sample >= args.samples) return;
  const auto mixed = mixed_affine(args.branches, args.probs + sample * args.branches,
                                  [&](int64_t branch) { return map_of(args, branch, channel); });
  args.centre[at] = mixed.mean;
  args.scale[at] = mixed.scale;
  args.shift[at] = mixed.bias;
}

// A thread a (branch, channel).
template <typename T>
__global__ void __launch_bounds__(kThreads, 2)
    norm_unmix_tables_kernel(const __grid_constant__ MultiBatchNormUnmixArgs<T> args) {
  const int64_t at = thread_number(), branch = at / args.mix.channels;
  if (branch < args.mix.branches) unmix_branch(args, branch, at % args.mix.channels);
}

// A warp a (sample, branch), with its lanes on the channels.
template <typename T>
__global__ void __launch_bounds__(kThreads, 2)
    norm_unmix_probs_kernel(const __grid_constant__ MultiBatchNormUnmixArgs<T> args) {
  const int64_t at = thread_number() / kWarpSize, sample = at / args.mix.branches, branch = at % args.mix.branches;
  if (sample >= args.mix.samples) return;
  double total = 0;
  for (int64_t c = lane_id(); c < args.mix.channels; c += kWarpSize) {
    total += probability_gradient(args, map_of(args.mix, branch, c), sample, c);
  }
  total = warp_sum(total);
  if (lane_id() == 0) args.grad_probs[at] = static_cast<T>(total);
}

}  // namespace

template <typename T>
void multi_batch_norm_merge_cuda(const MultiBatchNormMergeArgs<T>& args, void* stream) {
  const int64_t entries = args.branches * args.channels;
  if (entries > 0) launch<norm_merge_kernel<T>>(blocks_for(entries), kThreads, 0, stream, args);
}

template <typename T>
void multi_batch_norm_update_cuda(const MultiBatchNormUpdateArgs<T>& args, void* stream) {
  launch<norm_update_kernel<T>>(static_cast<unsigned>(args.branches), kThreads, 0, stream, args);
}

template <typename T>
void multi_batch_norm_mix_cuda(const MultiBatchNormMixArgs<T>& args, void* stream) {
  launch<norm_mix_kernel<T>>(blocks_for(args.samples * args.channels), kThreads, 0, stream, args);
}

template <typename T>
void multi_batch_norm_unmix_cuda(const MultiBatchNormUnmixArgs<T>& args, void* stream) {
  const auto& mix = args.mix;
  launch<norm_unmix_tables_kernel<T>>(blocks_for(mix.branches * mix.channels), kThreads, 0, stream, args);
  launch<norm_unmix_probs_kernel<T>>(blocks_for(mix.samples * mix.branches * kWarpSize), kThreads, 0, stream, args);
}

#define MDPROP_INSTANTIATE(T)                                                               \
  template void multi_batch_norm_merge_cuda<T>(const MultiBatchNormMergeArgs<T>&, void*);   \
  template void multi_batch_norm_update_cuda<T>(const MultiBatchNormUpdateArgs<T>&, void*); \
  template void multi_batch_norm_mix_cuda<T>(const MultiBatchNormMixArgs<T>&, void*);       \
  template void multi_batch_norm_unmix_cuda<T>(const MultiBatchNormUnmixArgs<T>&, void*);
MDPROP_INSTANTIATE(float)
MDPROP_INSTANTIATE(double)

}  // namespace mdprop
