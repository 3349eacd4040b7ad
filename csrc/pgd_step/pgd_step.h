// One ascent step of projected gradient descent, project(x + step * direction(grad)) onto ball and box, and random
// points of ball and box to start from.
//
// Per sample n, with M values:
//   linf   direction = sign(grad)             ball: |y - origin| <= radius per value
//   l2     direction = grad / ||grad||_2      ball: ||y - origin||_2 <= radius
//   l1     direction = sign(grad)             ball: ||y - origin||_1 <= radius
// For linf and l2 the result is the projection onto the ball, clamped to the box lower <= y <= upper; for l1 it is the
// nearest point of ball and box together. It obeys both after rounding to the output type: values are rounded towards
// the origin where they would leave the ball. Where a half type has no value so near to an origin of another type, its
// nearest value counts against the radius before all else. The box wins where the origin lies outside. sign(NaN) is 0;
// a NaN in x or origin stays NaN, and no norm counts it; l2 and l1 take an infinite distance for the largest finite
// one.
#pragma once

#include <cstdint>

#include "common/cpu_isa.h"
#include "common/numeric.h"

namespace mdprop {

enum class PgdNorm { kLinf, kL2, kL1 };

// Tensors are dense, in one layout. Exactly one of origin and origin_bytes is set, and one of the three outputs. Where
// a pointer is null, the number of the same name counts.
template <typename T>
struct PgdStepArgs {
  const T* x;                    // [N, M]
  const T* grad;                 // [N, M]
  const T* origin;               // [N, M], or null
  const uint8_t* origin_bytes;   // [N, M], or null; a byte counts as value / 255
  T* velocity;                   // [N, M], or null; becomes decay * velocity + grad / mean|grad|, replaces grad
  T* out;                        // [N, M], or null; may be x, and overlaps nothing else
  BFloat16* out_bfloat16;        // [N, M], or null; for fp32 x only
  Half* out_half;                // [N, M], or null; for fp32 x only
  const double* steps;           // [N], or null
  const double* radii;           // [N], or null; >= 0, rounded down to acc_t<T>
  const acc_t<T>* lower_bounds;  // value i of sample n at n * bound_sample_stride + i, or null
  const acc_t<T>* upper_bounds;  // like lower_bounds, and null where that is
  const uint8_t* active;         // [N], or null; where 0, the result is x, and the velocity rests
  const uint8_t* mask;           // value i of sample n at n * mask_sample_stride + i, or null; where 0, the result
                                 // is x, the velocity rests, and no norm or mean counts the position
  unsigned char* workspace;      // on a card: scratch memory of pgd_step_workspace() bytes, aligned to 256
  int64_t bound_sample_stride;   // 0 or M
  int64_t mask_sample_stride;    // 0 or M
  int64_t samples;               // N
  int64_t sample_size;           // M
  double step, radius, decay;
  acc_t<T> lower, upper;
  PgdNorm norm;
};

// A point drawn uniformly in each sample's ball, then clamped to the box and rounded as above. The noise of value i of
// sample n depends on seed, offset, n and i alone, and is the same for every T.
template <typename T>
struct RandomStartArgs {
  const T* origin;      // [N, M]
  T* out;               // [N, M]; may be origin
  const double* radii;  // as in PgdStepArgs
  const acc_t<T>* lower_bounds;
  const acc_t<T>* upper_bounds;
  unsigned char* workspace;  // on a card: scratch memory of random_start_workspace() bytes, aligned to 256
  int64_t bound_sample_stride;
  int64_t samples;      // N < 2^32
  int64_t sample_size;  // M < 2^34 - 4
  uint64_t seed, offset;
  double radius;
  acc_t<T> lower, upper;
  PgdNorm norm;
};

MDPROP_DECLARE_KERNELS(pgd_step, PgdStepArgs)
MDPROP_DECLARE_KERNELS(random_start, RandomStartArgs)

}  // namespace mdprop
