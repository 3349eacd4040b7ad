// What both CPU layouts of multi_batch_norm share. Included by its kernels only.
#pragma once

#include <algorithm>

#include "common/parallel.h"
#include "common/tile.h"
#include "multi_batch_norm/multi_batch_norm.h"
#include "multi_batch_norm/multi_batch_norm_math.h"

namespace mdprop::MDPROP_ISA {
namespace {

using Shape = MultiBatchNormShape;

constexpr int64_t kValuesPerTask = 1 << 14;  // below this much work a second thread does not pay

template <typename T>
Affine<acc_t<T>> affine_of(const Shape& shape, const acc_t<T>* weight, const acc_t<T>* bias, const acc_t<T>* mean,
                           const acc_t<T>* var, int64_t at) {
  using Acc = acc_t<T>;
  const Acc inverse = inverse_deviation(var[at], shape.eps);
  return {mean[at], weight == nullptr ? inverse : weight[at] * inverse, bias == nullptr ? Acc(0) : bias[at]};
}

int64_t count_of(const Shape& shape, int64_t branch) {
  return (shape.offsets[branch + 1] - shape.offsets[branch]) * shape.spatial;
}

}  // namespace
}  // namespace mdprop::MDPROP_ISA
