// The statistics of a thread's columns, as the forward kernels of multi_batch_norm collect them.
#pragma once

#include "common/welford.h"
#include "multi_batch_norm/multi_batch_norm_walk.cuh"

MDPROP_ISA_BEGIN

// A thread's mean and sum of squared deviations of each column, about a shift near the data: exact two-pass sums over
// the loads of one step, joined step by step by Chan's rule.
template <typename Acc, int kWidth>
class ColumnMoments {
 public:
  __device__ ColumnMoments() {
#pragma unroll
    for (int v = 0; v < kWidth; ++v) mean_[v] = m2_[v] = 0;
  }

  template <typename T, int kCount>
  __device__ void add(const Walk<kWidth>& walk, const Acc* shifts, const Place (&places)[kCount],
                      const Vector<T, kWidth> (&values)[kCount]) {
    int number = 0;
#pragma unroll
    for (int u = 0; u < kCount; ++u) number += places[u].valid();
    if (number == 0) return;
    const Acc each = Acc(1) / static_cast<Acc>(number), joined = count_ + static_cast<Acc>(number);
    const Acc share = static_cast<Acc>(number) / joined, cross = count_ * share;
#pragma unroll
    for (int v = 0; v < kWidth; ++v) {
      const Acc shift = shifts[walk.channel(v)];
      Acc sum = 0, square = 0;
#pragma unroll
      for (int u = 0; u < kCount; ++u) sum += places[u].valid() ? widen(values[u][v]) - shift : Acc(0);
      const Acc centre = sum * each;
#pragma unroll
      for (int u = 0; u < kCount; ++u) {
        const Acc deviation = places[u].valid() ? widen(values[u][v]) - shift - centre : Acc(0);
        square = fma(deviation, deviation, square);
      }
      const Acc delta = centre - mean_[v];
      mean_[v] = fma(delta, share, mean_[v]);
      m2_[v] += fma(delta * delta, cross, square);
    }
    count_ = joined;
  }

  // Sums of the deviations from the shift and of their squares.
  __device__ Sums sums(int v) const {
    const double mean = mean_[v], first = mean * static_cast<double>(count_);
    return {first, fma(first, mean, static_cast<double>(m2_[v]))};
  }

 private:
  Acc mean_[kWidth], m2_[kWidth];
  Acc count_ = 0;
};

__device__ inline Moments moments_of(const Sums& sums, double shift, double count) {
  if (count == 0) return {};
  const double offset = sums.first / count, m2 = sums.second - sums.first * offset;
  return {count, shift + offset, m2 < 0 ? 0 : m2};  // NaN stays
}

MDPROP_ISA_END
