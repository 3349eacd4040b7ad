// The formulas of multi_batch_norm_tables.h, shared by CPU and CUDA.
#pragma once

#include "common/welford.h"
#include "multi_batch_norm/multi_batch_norm_math.h"
#include "multi_batch_norm/multi_batch_norm_tables.h"

MDPROP_ISA_BEGIN

template <typename T>
MDPROP_HOST_DEVICE Moments merged_moments(const MultiBatchNormMergeArgs<T>& args, int64_t branch, int64_t channel) {
  Moments total;
  for (int64_t part = 0; part < args.parts; ++part) {
    const double* table = args.moments + part * args.branches * (2 * args.channels + 1);
    merge(total, {table[count_entry(args.channels, branch)], table[first_entry(args.channels, branch, channel)],
                  table[second_entry(args.channels, branch, channel)]});
  }
  return total;
}

// The weight of a batch in the running statistics, where `batches` counts the batch itself.
MDPROP_HOST_DEVICE double batch_share(bool cumulative, double momentum, int64_t batches) {
  return cumulative ? 1.0 / static_cast<double>(batches) : momentum;
}

// What turns the biased variance of `count` values into the unbiased one.
MDPROP_HOST_DEVICE double unbiased_factor(int64_t count) {
  return count > 1 ? static_cast<double>(count) / static_cast<double>(count - 1) : 1.0;
}

template <typename T>
MDPROP_HOST_DEVICE T moved_towards(T running, double value, double share) {
  return static_cast<T>((1.0 - share) * static_cast<double>(running) + share * value);
}

// affine(b) gives the map of branch b for the channel at hand, probs [B] are those of the sample.
template <typename T, typename AffineOf>
MDPROP_HOST_DEVICE Affine<T> mixed_affine(int64_t branches, const T* probs, const AffineOf& affine) {
  double total = 0, means = 0, scale = 0, shift = 0;
  for (int64_t b = 0; b < branches; ++b) {
    if (probs[b] == 0) continue;
    const double part = fabs(static_cast<double>(probs[b]));
    total += part;
    means += part * static_cast<double>(affine(b).mean);
  }
  const T centre = static_cast<T>(total > 0 ? means / total : 0.0);
  for (int64_t b = 0; b < branches; ++b) {
    if (probs[b] == 0) continue;
    const Affine<T> map = affine(b);
    const double distance = static_cast<double>(centre) - static_cast<double>(map.mean);
    scale += static_cast<double>(probs[b]) * map.scale;
    shift += static_cast<double>(probs[b]) * (map.bias + distance * map.scale);
  }
  return {centre, static_cast<T>(scale), static_cast<T>(shift)};
}

// sum(g * (x - mean)) of one sample and channel, from the sums about the centre of the mixture.
template <typename T>
MDPROP_HOST_DEVICE double product_about(T mean, const MultiBatchNormUnmixArgs<T>& args, int64_t at) {
  return args.grad_scale[at] +
         (static_cast<double>(args.mix.centre[at]) - static_cast<double>(mean)) * args.grad_shift[at];
}

// The gradients of weight and bias of one branch and channel.
template <typename T>
MDPROP_HOST_DEVICE void unmix_branch(const MultiBatchNormUnmixArgs<T>& args, int64_t branch, int64_t channel) {
  const auto& mix = args.mix;
  const int64_t at = branch * mix.channels + channel;
  double products = 0, sums = 0;
  for (int64_t n = 0; n < mix.samples; ++n) {
    const double prob = mix.probs[n * mix.branches + branch];
    if (prob == 0) continue;
    products += prob * product_about(mix.mean[at], args, n * mix.channels + channel);
    sums += prob * args.grad_shift[n * mix.channels + channel];
  }
  args.grad_weight[at] = static_cast<T>(products * inverse_deviation(mix.var[at], mix.eps));
  args.grad_bias[at] = static_cast<T>(sums);
}

// What channel `channel` gives to the gradient of one probability.
template <typename T>
MDPROP_HOST_DEVICE double probability_gradient(const MultiBatchNormUnmixArgs<T>& args, const Affine<T>& map,
                                               int64_t sample, int64_t channel) {
  const int64_t at = sample * args.mix.channels + channel;
  return map.scale * product_about(map.mean, args, at) + static_cast<double>(map.bias) * args.grad_shift[at];
}

MDPROP_ISA_END
