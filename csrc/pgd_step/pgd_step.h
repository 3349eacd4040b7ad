// One ascent step of projected gradient descent: project(x + step * direction(grad)) onto ball and box.
//
// Per sample n, with M values:
//   linf   direction = sign(grad)             ball: |y - origin| <= radius per value
//   l2     direction = grad / ||grad||_2      ball: ||y - origin||_2 <= radius
// then the box lower <= y <= upper. The result obeys ball and box after rounding to the storage type T: values are
// rounded towards the origin where they would leave the ball. sign(NaN) is 0; a NaN in x or origin stays NaN.
#pragma once

#include <cstdint>

#include "common/cpu_isa.h"
#include "common/numeric.h"

namespace mdprop {

enum class PgdNorm { kLinf, kL2 };

template <typename T>
struct PgdStepArgs {
  const T* x;             // [N, M], dense
  const T* grad;          // [N, M], same layout
  const T* origin;        // [N, M], same layout
  T* out;                 // [N, M], same layout; must not alias an input
  const double* step;     // [N], or [1] with step_stride 0
  const double* radius;   // [N], or [1] with radius_stride 0; >= 0, rounded down to acc_t<T>
  const acc_t<T>* lower;  // [N, M] same layout with bound_stride 1, or [1] with bound_stride 0
  const acc_t<T>* upper;  // like lower
  int64_t step_stride;
  int64_t radius_stride;
  int64_t bound_stride;
  int64_t samples;      // N
  int64_t sample_size;  // M
  PgdNorm norm;
};

MDPROP_DECLARE_CPU(pgd_step, PgdStepArgs)

}  // namespace mdprop
