// Random arguments of pgd_step with any choice of its options, for the tests of its kernels.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "pgd_step/pgd_step.h"
#include "tests/random.h"

namespace mdprop_test {

struct PgdOptions {
  mdprop::PgdNorm norm;
  bool tensor_bounds = false;  // one pair of bounds a value, shared by the samples
  bool own_bounds = false;     // a pair for every value of every sample
  bool bytes = false;          // the origin is an image of bytes
  bool velocity = false;
  bool active = false;
  bool mask = false;  // shared by the samples
};

inline const mdprop::PgdNorm kNorms[] = {mdprop::PgdNorm::kLinf, mdprop::PgdNorm::kL2, mdprop::PgdNorm::kL1};

// Values round 0.5, bounds 0.3 and 0.7, radii that some samples leave. Odd samples are not active.
template <typename T>
struct PgdProblem {
  std::vector<T> x, grad, origin, velocity;
  std::vector<uint8_t> bytes, active, mask;
  std::vector<double> step, radius;
  std::vector<mdprop::acc_t<T>> lower, upper;
  mdprop::PgdStepArgs<T> args = {};  // without an output

  PgdProblem(int64_t samples, int64_t size, const PgdOptions& options)
      : x(normal_values<T>(samples * size, 1, 0.5, 0.2)),
        grad(normal_values<T>(samples * size, 2)),
        origin(normal_values<T>(samples * size, 3, 0.5, 0.05)),
        velocity(normal_values<T>(samples * size, 4)) {
    using mdprop::PgdNorm;
    const double root = std::sqrt(static_cast<double>(size)), values = static_cast<double>(size);
    const double reach = options.norm == PgdNorm::kLinf ? 1 : options.norm == PgdNorm::kL2 ? root : values;
    for (int64_t n = 0; n < samples; ++n) {
      step.push_back((options.norm == PgdNorm::kL2 ? root : 1) * 0.03 * static_cast<double>(n + 1));
      radius.push_back(0.1 * reach / static_cast<double>(n + 1));
      active.push_back(n % 2 == 0);
    }
    std::mt19937 generator(5);
    for (int64_t i = 0; i < samples * size; ++i) bytes.push_back(static_cast<uint8_t>(60 + generator() % 140));
    for (int64_t i = 0; i < size; ++i) mask.push_back(generator() % 3 != 0);
    const bool tensors = options.tensor_bounds || options.own_bounds;
    const int64_t bounds = options.own_bounds ? samples * size : options.tensor_bounds ? size : 1;
    lower.assign(bounds, mdprop::acc_t<T>(0.3));
    upper.assign(bounds, mdprop::acc_t<T>(0.7));

    args.x = x.data();
    args.grad = grad.data();
    args.origin = options.bytes ? nullptr : origin.data();
    args.origin_bytes = options.bytes ? bytes.data() : nullptr;
    args.velocity = options.velocity ? velocity.data() : nullptr;
    args.steps = step.data();
    args.radii = radius.data();
    args.lower_bounds = tensors ? lower.data() : nullptr;
    args.upper_bounds = tensors ? upper.data() : nullptr;
    args.lower = lower[0];
    args.upper = upper[0];
    args.active = options.active ? active.data() : nullptr;
    args.mask = options.mask ? mask.data() : nullptr;
    args.bound_sample_stride = options.own_bounds ? size : 0;
    args.samples = samples;
    args.sample_size = size;
    args.decay = 0.75;
    args.norm = options.norm;
  }
  PgdProblem(PgdProblem&&) = delete;

  double origin_at(int64_t i) const {
    return args.origin == nullptr ? bytes[i] / 255.0 : static_cast<double>(mdprop::widen(origin[i]));
  }
};

}  // namespace mdprop_test
