// The formulas of multi_batch_norm for one value, shared by CPU and CUDA.
#pragma once

#include <cmath>

#include "common/numeric.h"

MDPROP_ISA_BEGIN

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
