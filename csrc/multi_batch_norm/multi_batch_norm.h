// Batch norm with B branches in one pass over a mixed batch: every sample is normalised by the statistics and the
// affine parameters of its own branch, with no split and no concatenation.
//
//   y = relu?((x - mean[b, c]) / sqrt(var[b, c] + eps) * weight[b, c] + bias[b, c]),  b the branch of the sample
//
// In training mean and var are those of the branch's own values in this batch (var biased); else they are given.
#pragma once

#include <cstdint>

#include "common/cpu_isa.h"
#include "common/numeric.h"

namespace mdprop {

// The shape, the layout and the branches of x, common to forward and backward.
struct MultiBatchNormShape {
  int64_t samples;         // N
  int64_t channels;        // C
  int64_t spatial;         // S, the values of one channel of one sample
  int64_t branches;        // B
  bool channels_last;      // x is [N, S, C]; else [N, C, S]
  const int64_t* order;    // [N] samples sorted by branch, stable
  const int64_t* offsets;  // [B + 1] branch b owns order[offsets[b]] .. order[offsets[b + 1] - 1]
  bool training;
  bool relu;
  double eps;
};

template <typename T>
struct MultiBatchNormForwardArgs {
  MultiBatchNormShape shape;
  const T* x;              // [N, C, S] or [N, S, C], dense
  const acc_t<T>* weight;  // [B, C] or null: 1
  const acc_t<T>* bias;    // [B, C] or null: 0
  acc_t<T>* mean;          // [B, C] written in training (0 for an empty branch), else read
  acc_t<T>* var;           // [B, C] biased; like mean
  T* y;                    // like x; must not alias it
};

template <typename T>
struct MultiBatchNormBackwardArgs {
  MultiBatchNormShape shape;
  const T* grad;           // like x
  const T* x;              // [N, C, S] or [N, S, C], dense
  const acc_t<T>* weight;  // [B, C] or null: 1
  const acc_t<T>* bias;    // [B, C] or null: 0; read with relu only
  const acc_t<T>* mean;    // [B, C] as forward used it
  const acc_t<T>* var;     // [B, C]
  T* grad_x;               // like x
  acc_t<T>* grad_weight;   // [B, C], or null where neither is wanted
  acc_t<T>* grad_bias;     // [B, C], or null
};

MDPROP_DECLARE_CPU(multi_batch_norm_forward, MultiBatchNormForwardArgs)
MDPROP_DECLARE_CPU(multi_batch_norm_backward, MultiBatchNormBackwardArgs)

}  // namespace mdprop
