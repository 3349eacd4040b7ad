#include "multi_batch_norm/multi_batch_norm_tables.h"

#include "common/parallel.h"
#include "common/scratch.h"
#include "multi_batch_norm/multi_batch_norm_tables_math.h"

namespace mdprop::MDPROP_ISA {
namespace {

constexpr int64_t kStepsPerTask = 1 << 12;  // below this many steps of a loop a second thread does not pay

// The map of every branch and channel, [B, C]: the deviations are then inverted once and not once a sample.
template <typename T>
class AffineTable {
 public:
  explicit AffineTable(const MultiBatchNormMixArgs<T>& args)
      : channels_(args.channels), maps_(args.branches * args.channels) {
    for (int64_t at = 0; at < maps_.size(); ++at) {
      maps_[at] = affine_at(args.weight, args.bias, args.mean, args.var, args.eps, at);
    }
  }
  const Affine<T>& operator()(int64_t branch, int64_t channel) const { return maps_[branch * channels_ + channel]; }

 private:
  int64_t channels_;
  Scratch<Affine<T>> maps_;
};

// Calls body(row, column) for every entry of [rows, columns], each of which takes `steps`, in parallel.
template <typename Body>
void for_each_entry(int64_t rows, int64_t columns, int64_t steps, const Body& body) {
  parallel_for(rows * columns, kStepsPerTask / (steps + 1) + 1, [&](int64_t first, int64_t last) {
    for (int64_t at = first; at < last; ++at) body(at / columns, at % columns);
  });
}

}  // namespace

template <typename T>
void multi_batch_norm_merge(const MultiBatchNormMergeArgs<T>& args) {
  for_each_entry(args.branches, args.channels, args.parts, [&](int64_t branch, int64_t channel) {
    const Moments moments = merged_moments(args, branch, channel);
    const int64_t at = branch * args.channels + channel;
    args.mean[at] = static_cast<T>(moments.mean);
    args.var[at] = static_cast<T>(moments.count > 0 ? moments.m2 / moments.count : 0);
    if (channel == 0) args.count[branch] = static_cast<int64_t>(moments.count);
  });
}

template <typename T>
void multi_batch_norm_update(const MultiBatchNormUpdateArgs<T>& args) {
  for (int64_t branch = 0; branch < args.branches; ++branch) {
    const int64_t count = args.count[branch];
    if (count == 0) continue;
    const int64_t batches = args.num_batches[branch] == nullptr ? 1 : ++*args.num_batches[branch];
    const double share = batch_share(args.cumulative, args.momentum, batches), unbiased = unbiased_factor(count);
    for (int64_t c = 0; c < args.channels; ++c) {
      const int64_t at = branch * args.channels + c;
      T& mean = args.running_means[branch][c];
      T& var = args.running_vars[branch][c];
      mean = moved_towards(mean, args.mean[at], share);
      var = moved_towards(var, unbiased * args.var[at], share);
    }
  }
}

template <typename T>
void multi_batch_norm_mix(const MultiBatchNormMixArgs<T>& args) {
  const AffineTable<T> maps(args);
  for_each_entry(args.samples, args.channels, args.branches, [&](int64_t n, int64_t c) {
    const auto mixed =
        mixed_affine(args.branches, args.probs + n * args.branches, [&](int64_t b) { return maps(b, c); });
    args.centre[n * args.channels + c] = mixed.mean;
    args.scale[n * args.channels + c] = mixed.scale;
    args.shift[n * args.channels + c] = mixed.bias;
  });
}

template <typename T>
void multi_batch_norm_unmix(const MultiBatchNormUnmixArgs<T>& args) {
  const auto& mix = args.mix;
  const AffineTable<T> maps(mix);
  for_each_entry(mix.branches, mix.channels, mix.samples, [&](int64_t b, int64_t c) { unmix_branch(args, b, c); });
  for_each_entry(mix.samples, mix.branches, mix.channels, [&](int64_t n, int64_t b) {
    double total = 0;
    for (int64_t c = 0; c < mix.channels; ++c) total += probability_gradient(args, maps(b, c), n, c);
    args.grad_probs[n * mix.branches + b] = static_cast<T>(total);
  });
}

#define MDPROP_INSTANTIATE(T)                                                   \
  template void multi_batch_norm_merge<T>(const MultiBatchNormMergeArgs<T>&);   \
  template void multi_batch_norm_update<T>(const MultiBatchNormUpdateArgs<T>&); \
  template void multi_batch_norm_mix<T>(const MultiBatchNormMixArgs<T>&);       \
  template void multi_batch_norm_unmix<T>(const MultiBatchNormUnmixArgs<T>&);
MDPROP_INSTANTIATE(float)
MDPROP_INSTANTIATE(double)

}  // namespace mdprop::MDPROP_ISA
