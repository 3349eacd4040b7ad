// The formulas of multi_batch_norm for one value, shared by CPU and CUDA.
#pragma once

#include <cmath>

#include "common/numeric.h"
#include "multi_batch_norm/multi_batch_norm.h"

MDPROP_ISA_BEGIN

// Whether the channels of a pixel lie side by side. A single value a plane is a row of channels in either layout.
MDPROP_HOST_DEVICE bool reads_rows(const MultiBatchNormShape& shape) {
  return shape.channels_last || shape.spatial == 1;
}

MDPROP_HOST_DEVICE int64_t lines(const MultiBatchNormShape& shape) {
  return shape.samples * (reads_rows(shape) ? shape.spatial : shape.channels);
}

MDPROP_HOST_DEVICE int64_t mask_bytes_per_line(const MultiBatchNormShape& shape) {
  return ((reads_rows(shape) ? shape.channels : shape.spatial) + 7) / 8;
}

MDPROP_HOST_DEVICE int64_t count_of(const MultiBatchNormShape& shape, int64_t branch) {
  return (shape.offsets[branch + 1] - shape.offsets[branch]) * shape.spatial;
}

// Entries of a table of moments or sums, [B, 2C + 1]: the count of a branch, then two values a channel.
MDPROP_HOST_DEVICE int64_t count_entry(int64_t channels, int64_t branch) { return branch * (2 * channels + 1); }
MDPROP_HOST_DEVICE int64_t first_entry(int64_t channels, int64_t branch, int64_t channel) {
  return count_entry(channels, branch) + 1 + channel;
}
MDPROP_HOST_DEVICE int64_t second_entry(int64_t channels, int64_t branch, int64_t channel) {
  return first_entry(channels, branch, channel) + channels;
}

// What one (branch, channel) needs to normalise a value. Subtracting the mean before scaling keeps the digits of data
// whose mean is large against its deviation.
template <typename Acc>
struct Affine {
  Acc mean;
  Acc scale;  // weight / sqrt(var + eps)
  Acc bias;

  MDPROP_HOST_DEVICE Acc operator()(Acc x) const { return (x - mean) * scale + bias; }
};

template <typename Acc>
MDPROP_HOST_DEVICE Acc inverse_deviation(Acc var, double eps) {
  return static_cast<Acc>(1.0 / sqrt(static_cast<double>(var) + eps));
}

// At position `at` of [B, C]; without variances the weight is the whole scale.
template <typename Acc>
MDPROP_HOST_DEVICE Acc inverse_at(const Acc* var, int64_t at, double eps) {
  return var == nullptr ? Acc(1) : inverse_deviation(var[at], eps);
}

template <typename Acc>
MDPROP_HOST_DEVICE Affine<Acc> affine_at(const Acc* weight, const Acc* bias, const Acc* mean, const Acc* var,
                                         double eps, int64_t at) {
  const Acc inverse = inverse_at(var, at, eps);
  return {mean[at], weight == nullptr ? inverse : weight[at] * inverse, bias == nullptr ? Acc(0) : bias[at]};
}

// NaN stays NaN and -0 stays -0, as in torch.relu.
template <typename Acc>
MDPROP_HOST_DEVICE Acc relu(Acc value) {
  return value < 0 ? Acc(0) : value;
}

// The gradient that reaches the normalisation: zero where relu cut the value off.
template <bool kRelu, typename Acc>
MDPROP_HOST_DEVICE Acc through_relu(Acc grad, Acc x, const Affine<Acc>& affine) {
  return !kRelu || affine(x) > 0 ? grad : Acc(0);
}

// dL/dx = scale * (g - centre - (x - mean) * slope), where in training
//   centre = sum(g) / n,  slope = sum(g * (x - mean)) / (n * (var + eps)),
// carry the dependence of mean and var on x, and both are 0 otherwise.
template <typename Acc>
struct InputGradient {
  Acc centre;
  Acc slope;

  MDPROP_HOST_DEVICE Acc operator()(Acc grad, Acc x, const Affine<Acc>& affine) const {
    return affine.scale * (grad - centre - (x - affine.mean) * slope);
  }
};

template <typename Acc>
MDPROP_HOST_DEVICE InputGradient<Acc> input_gradient(double grad_sum, double product_sum, double count, Acc var,
                                                     double eps) {
  return {static_cast<Acc>(grad_sum / count),
          static_cast<Acc>(product_sum / (count * (static_cast<double>(var) + eps)))};
}

MDPROP_ISA_END
