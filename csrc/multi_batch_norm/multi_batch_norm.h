// Batch norm with B branches in one pass over a mixed batch: every sample is normalised by the statistics and the
// affine parameters of its own branch, with no split and no concatenation.
//
//   y = relu?((x - mean[b, c]) / sqrt(var[b, c] + eps) * weight[b, c] + bias[b, c] + residual?),  b the sample's branch
//
// In training mean and var are those of the branch's own values in this batch (var biased); else they are given.
//
// Statistics and gradient sums can be had by themselves, as fp64 tables that add up over parts of a batch. So training
// splits into two halves with room for a collective between them:
//
//   moments [B, 2C + 1]: the count of a branch, then the mean of each channel, then its sum of squared deviations
//   sums    [B, 2C + 1]: the count of a branch, then sum(g) of each channel, then sum(g * (x - mean))
//
// The mask holds one bit a value, set where y > 0: bit j of a byte is value 8 i + j of a line, where a line is what
// lies contiguous of one plane [S], or with channels last of one pixel [C]. Lines start at a byte; spare bits are 0.
#pragma once

#include <cstdint>

#include "common/cpu_isa.h"
#include "common/numeric.h"

namespace mdprop {

constexpr int64_t kGivenSizes = 64;

// The shape, the layout and the branches of x, common to all kernels. On the CPU order and offsets are given; on a card
// kernels find them out from ids or sizes, so that the host never waits for a value.
struct MultiBatchNormShape {
  int64_t samples;     // N
  int64_t channels;    // C
  int64_t spatial;     // S, the values of one channel of one sample
  int64_t branches;    // B
  bool channels_last;  // x is [N, S, C]; else [N, C, S]
  int64_t* order;      // [N] samples sorted by branch, stable
  int64_t* offsets;    // [B + 1] branch b owns order[offsets[b]] .. order[offsets[b + 1] - 1]
  // On a card only: one of ids, sizes and host_sizes, or none for branch 0 throughout.
  const int64_t* ids;         // [N] the branch of each sample
  const int64_t* sizes;       // [B] samples of each branch, which follow one another
  const int64_t* host_sizes;  // the same in the host's memory, for at most kGivenSizes branches
  bool one_each;              // sample n is branch n
  void* workspace;            // workspace_bytes(shape, sizeof(T)), see multi_batch_norm_plan.h
  bool training;
  bool relu;
  double eps;
};

template <typename T>
struct MultiBatchNormStatisticsArgs {
  MultiBatchNormShape shape;
  const T* x;       // [N, C, S] or [N, S, C], dense
  double* moments;  // [B, 2C + 1], 0 for an empty branch
};

template <typename T>
struct MultiBatchNormForwardArgs {
  MultiBatchNormShape shape;
  const T* x;              // [N, C, S] or [N, S, C], dense
  const T* residual;       // like x, or null: 0
  const acc_t<T>* weight;  // [B, C] or null: 1
  const acc_t<T>* bias;    // [B, C] or null: 0
  acc_t<T>* mean;          // [B, C] written in training (0 for an empty branch), else read
  acc_t<T>* var;           // [B, C] biased; like mean. Null outside training: weight is the whole scale
  T* y;                    // like x; must not alias it
  uint8_t* mask;           // [lines, mask_bytes_per_line], or null where not wanted
  int64_t* count;          // [B] values a channel, or null
};

template <typename T>
struct MultiBatchNormBackwardArgs {
  MultiBatchNormShape shape;
  const T* grad;           // like x
  const T* x;              // [N, C, S] or [N, S, C], dense
  const uint8_t* mask;     // what relu passed, as forward wrote it; null: found out from x again
  const acc_t<T>* weight;  // [B, C] or null: 1
  const acc_t<T>* bias;    // [B, C] or null: 0; read with relu and without a mask only
  const acc_t<T>* mean;    // [B, C] as forward used it
  const acc_t<T>* var;     // [B, C]; null outside training: weight is the whole scale
  const double*
      total_sums;         // [B, 2C + 1] of more than this batch, to be used in training; or null: those of this batch
  double* sums;           // [B, 2C + 1] of this batch, or null
  T* grad_x;              // like x, or null where only sums are wanted
  T* grad_residual;       // like x, written with a mask: grad where it passed, else 0; or null
  acc_t<T>* grad_weight;  // [B, C] of this batch, or null where neither is wanted
  acc_t<T>* grad_bias;    // [B, C], or null
};

MDPROP_DECLARE_KERNELS(multi_batch_norm_statistics, MultiBatchNormStatisticsArgs)
MDPROP_DECLARE_KERNELS(multi_batch_norm_forward, MultiBatchNormForwardArgs)
MDPROP_DECLARE_KERNELS(multi_batch_norm_backward, MultiBatchNormBackwardArgs)

}  // namespace mdprop
