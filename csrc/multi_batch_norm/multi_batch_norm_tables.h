// The kernels around multi_batch_norm that touch tables only: a few thousand values, whatever the size of the batch.
#pragma once

#include <cstdint>

#include "common/cpu_isa.h"
#include "common/numeric.h"

namespace mdprop {

// Joins the moments of R parts of a batch by Chan's rule, in their order.
template <typename T>
struct MultiBatchNormMergeArgs {
  int64_t parts, branches, channels;  // R, B, C
  const double* moments;              // [R, B, 2C + 1], see multi_batch_norm.h
  T* mean;                            // [B, C], 0 for an empty branch
  T* var;                             // [B, C], biased
  int64_t* count;                     // [B] values a channel
};

// Moves running statistics towards those of a batch. A branch without values keeps what it has.
template <typename T>
struct MultiBatchNormUpdateArgs {
  static constexpr int kBranches = 16;  // of one call, so that the struct fits the parameters of a CUDA kernel

  int64_t branches, channels;       // B <= kBranches, C
  T* running_means[kBranches];      // [C] each
  T* running_vars[kBranches];       // [C] each, of the unbiased variance
  int64_t* num_batches[kBranches];  // a counter each, or null
  const T* mean;                    // [B, C]
  const T* var;                     // [B, C], biased
  const int64_t* count;             // [B] values a channel
  bool cumulative;                  // weigh all batches alike, by the counters; else by momentum
  double momentum;                  // weight of the batch
};

// The mixture of several branches is one affine map for each sample and channel:
//   sum_b p[b] ((x - mean[b]) scale[b] + bias[b]) = (x - centre) scale + shift
// The centre lies among the means, so that data far from zero keeps its digits. A branch of probability 0 takes no
// part.
template <typename T>
struct MultiBatchNormMixArgs {
  int64_t samples, branches, channels;  // N, B, C
  const T* weight;                      // [B, C] or null: 1
  const T* bias;                        // [B, C] or null: 0
  const T* mean;                        // [B, C]
  const T* var;                         // [B, C]
  const T* probs;                       // [N, B]
  double eps;
  T* centre;  // [N, C]
  T* scale;   // [N, C]
  T* shift;   // [N, C]
};

// The gradients of the tables of a mixture from those of its affine maps.
template <typename T>
struct MultiBatchNormUnmixArgs {
  MultiBatchNormMixArgs<T> mix;  // centre is read; scale and shift are not used
  const T* grad_scale;           // [N, C] sum(g * (x - centre))
  const T* grad_shift;           // [N, C] sum(g)
  T* grad_weight;                // [B, C]
  T* grad_bias;                  // [B, C]
  T* grad_probs;                 // [N, B]
};

MDPROP_DECLARE_KERNELS(multi_batch_norm_merge, MultiBatchNormMergeArgs)
MDPROP_DECLARE_KERNELS(multi_batch_norm_update, MultiBatchNormUpdateArgs)
MDPROP_DECLARE_KERNELS(multi_batch_norm_mix, MultiBatchNormMixArgs)
MDPROP_DECLARE_KERNELS(multi_batch_norm_unmix, MultiBatchNormUnmixArgs)

}  // namespace mdprop
