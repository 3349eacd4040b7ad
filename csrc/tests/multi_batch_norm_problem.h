// Random arguments and naive fp64 loops of multi_batch_norm, for the tests of its kernels.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "multi_batch_norm/multi_batch_norm_math.h"
#include "tests/check.h"
#include "tests/random.h"

namespace norm_problem {

using mdprop::acc_t;
using mdprop::MultiBatchNormShape;

struct Options {
  int64_t samples, channels, spatial;
  bool channels_last = false, training = true, relu = false, residual = false;
  double centre = 0.5;     // mean of x, whose deviation is 1
  bool one_sided = false;  // all samples in branch 0; else branches 0 and 2 alternate and branch 1 is empty
};

// What both directions take, and where the results go. mean and var are given outside training.
template <typename T>
struct Problem {
  MultiBatchNormShape shape{};
  std::vector<int64_t> branch_of, order, offsets{0, 0, 0, 0};
  std::vector<T> x, residual, grad, y, grad_x, grad_residual;
  std::vector<uint8_t> mask;
  std::vector<acc_t<T>> weight, bias, mean, var, grad_weight, grad_bias;
  std::vector<double> moments, sums;
  std::vector<int64_t> count;

  explicit Problem(const Options& options)
      : branch_of(options.samples),
        x(values(options, 1, options.centre)),
        grad(values(options, 2)),
        y(x.size()),
        grad_x(x.size()),
        weight(mdprop_test::normal_values<acc_t<T>>(3 * options.channels, 3)),
        bias(mdprop_test::normal_values<acc_t<T>>(3 * options.channels, 4)),
        mean(mdprop_test::normal_values<acc_t<T>>(3 * options.channels, 5, options.centre)),
        var(3 * options.channels, acc_t<T>(1.5)),
        grad_weight(3 * options.channels),
        grad_bias(3 * options.channels),
        moments(3 * (2 * options.channels + 1)),
        sums(moments.size()),
        count(3) {
    for (int64_t n = 0; n < options.samples; ++n) branch_of[n] = !options.one_sided && n % 3 == 1 ? 2 : 0;
    for (const int64_t b : {0, 2}) {
      for (int64_t n = 0; n < options.samples; ++n) {
        if (branch_of[n] == b) order.push_back(n);
      }
      for (int64_t later = b + 1; later <= 3; ++later) offsets[later] = static_cast<int64_t>(order.size());
    }
    shape.samples = options.samples;
    shape.channels = options.channels;
    shape.spatial = options.spatial;
    shape.branches = 3;
    shape.channels_last = options.channels_last;
    shape.order = order.data();
    shape.offsets = offsets.data();
    shape.training = options.training;
    shape.relu = options.relu;
    shape.eps = 1e-5;
    if (!options.residual) return;
    residual = values(options, 6);
    if (!options.relu) return;
    mask.resize(mdprop::lines(shape) * mdprop::mask_bytes_per_line(shape));
    grad_residual.resize(x.size());
  }

  int64_t at(int64_t n, int64_t c, int64_t s) const {
    return shape.channels_last ? (n * shape.spatial + s) * shape.channels + c
                               : (n * shape.channels + c) * shape.spatial + s;
  }

  // The bit of a value in the mask.
  bool passes(int64_t n, int64_t c, int64_t s) const {
    const bool rows = mdprop::reads_rows(shape);
    const int64_t line = rows ? n * shape.spatial + s : n * shape.channels + c, column = rows ? c : s;
    return (mask[line * mdprop::mask_bytes_per_line(shape) + column / 8] >> column % 8 & 1) != 0;
  }

  // Calls body(n, s) for every value of a (branch, channel).
  template <typename Body>
  void for_each_value(int64_t b, const Body& body) const {
    for (int64_t n = 0; n < shape.samples; ++n) {
      for (int64_t s = 0; branch_of[n] == b && s < shape.spatial; ++s) body(n, s);
    }
  }

 private:
  static std::vector<T> values(const Options& options, uint32_t seed, double centre = 0) {
    return mdprop_test::normal_values<T>(options.samples * options.channels * options.spatial, seed, centre);
  }
};

// One (branch, channel) of the results against the formulas, with the statistics as the kernel rounded them.
template <typename T>
void check_channel(const Problem<T>& p, int64_t b, int64_t c, double tolerance) {
  const auto& shape = p.shape;
  const int64_t row = b * shape.channels + c;
  const auto x = [&](int64_t n, int64_t s) { return static_cast<double>(mdprop::widen(p.x[p.at(n, c, s)])); };
  double count = 0, sum = 0, squares = 0;
  p.for_each_value(b, [&](int64_t n, int64_t s) { ++count, sum += x(n, s); });
  CHECK(p.count[b] == static_cast<int64_t>(count));
  if (count == 0) {
    CHECK(p.grad_weight[row] == 0 && p.grad_bias[row] == 0);
    if (shape.training) CHECK(p.mean[row] == 0 && p.var[row] == 0);
    return;
  }
  p.for_each_value(b, [&](int64_t n, int64_t s) { squares += std::pow(x(n, s) - sum / count, 2); });
  if (shape.training) {
    CHECK_NEAR(p.mean[row], sum / count, tolerance * (1 + std::fabs(sum / count)) / 8);
    CHECK_NEAR(p.var[row], squares / count, tolerance);
    CHECK_NEAR(p.moments[mdprop::first_entry(shape.channels, b, c)], p.mean[row], 1e-6 * (1 + std::fabs(sum / count)));
    CHECK_NEAR(p.moments[mdprop::second_entry(shape.channels, b, c)] / count, p.var[row], 1e-6 * (1 + p.var[row]));
  }
  const double mean = p.mean[row], inverse = 1 / std::sqrt(static_cast<double>(p.var[row]) + 1e-5);
  const auto normal = [&](int64_t n, int64_t s) { return (x(n, s) - mean) * inverse; };
  // Whether relu passes a value is decided in the kernel's own arithmetic: near 0 the two may differ.
  const acc_t<T> kernel_scale = p.weight[row] * mdprop::inverse_deviation(p.var[row], 1e-5);
  const mdprop::Affine<acc_t<T>> kernel_affine{p.mean[row], kernel_scale, p.bias[row]};
  const auto incoming = [&](int64_t n, int64_t s) {
    const bool passes =
        !shape.relu || (p.mask.empty() ? kernel_affine(mdprop::widen(p.x[p.at(n, c, s)])) > 0 : p.passes(n, c, s));
    return passes ? static_cast<double>(mdprop::widen(p.grad[p.at(n, c, s)])) : 0.0;
  };
  double grad_sum = 0, product_sum = 0;
  p.for_each_value(b, [&](int64_t n, int64_t s) {
    const int64_t i = p.at(n, c, s);
    double expected = normal(n, s) * p.weight[row] + p.bias[row];
    if (!p.residual.empty()) expected += mdprop::widen(p.residual[i]);
    if (shape.relu) expected = std::max(0.0, expected);
    CHECK_NEAR(mdprop::widen(p.y[i]), expected, tolerance * (1 + std::fabs(expected)));
    if (!p.mask.empty()) {
      CHECK(p.passes(n, c, s) == (mdprop::widen(p.y[i]) > 0));
      CHECK(mdprop::widen(p.grad_residual[i]) == incoming(n, s));
    }
    grad_sum += incoming(n, s);
    product_sum += incoming(n, s) * normal(n, s);
  });
  CHECK_NEAR(p.grad_bias[row], grad_sum, tolerance * std::sqrt(count) * 4);
  CHECK_NEAR(p.grad_weight[row], product_sum, tolerance * std::sqrt(count) * 4);
  CHECK_NEAR(p.sums[mdprop::first_entry(shape.channels, b, c)], p.grad_bias[row], 1e-5 * (1 + std::fabs(grad_sum)));
  p.for_each_value(b, [&](int64_t n, int64_t s) {
    const double kept =
        shape.training ? incoming(n, s) - grad_sum / count - normal(n, s) * product_sum / count : incoming(n, s);
    CHECK_NEAR(mdprop::widen(p.grad_x[p.at(n, c, s)]), kept * inverse * p.weight[row],
               tolerance * (1 + std::fabs(p.weight[row]) * 4));
  });
}

template <typename T>
void check_all(const Problem<T>& problem, double tolerance) {
  for (int64_t b = 0; b < 3; ++b) {
    for (int64_t c = 0; c < problem.shape.channels; ++c) check_channel(problem, b, c, tolerance);
  }
}

// Calls body(channels_last, training, relu, residual) for every choice.
template <typename Body>
void for_each_choice(const Body& body) {
  for (int bits = 0; bits < 16; ++bits) body((bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0);
}

template <typename T>
constexpr double kTolerance = 2e-5;
template <>
inline constexpr double kTolerance<double> = 1e-12;
template <>
inline constexpr double kTolerance<mdprop::BFloat16> = 2e-2;
template <>
inline constexpr double kTolerance<mdprop::Half> = 3e-3;

}  // namespace norm_problem
