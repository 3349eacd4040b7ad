// multi_batch_norm, forward and backward, against naive loops in fp64.
#include <cmath>
#include <vector>

#include "multi_batch_norm/multi_batch_norm.h"
#include "multi_batch_norm/multi_batch_norm_math.h"
#include "tests/check.h"
#include "tests/random.h"

namespace {

using mdprop::acc_t;
using mdprop::MultiBatchNormShape;

template <typename T>
struct Problem {
  MultiBatchNormShape shape;
  std::vector<int64_t> order, offsets, branch_of;
  std::vector<T> x, grad, y, grad_x;
  std::vector<acc_t<T>> weight, bias, mean, var, grad_weight, grad_bias;

  Problem(int64_t samples, int64_t channels, int64_t spatial, bool channels_last, bool training, bool relu,
          double centre)
      : offsets{0, 0, 0, 0},
        branch_of(samples),
        x(mdprop_test::normal_values<T>(samples * channels * spatial, 1, centre)),
        grad(mdprop_test::normal_values<T>(samples * channels * spatial, 2)),
        y(x.size()),
        grad_x(x.size()),
        weight(mdprop_test::normal_values<acc_t<T>>(3 * channels, 3)),
        bias(mdprop_test::normal_values<acc_t<T>>(3 * channels, 4)),
        mean(mdprop_test::normal_values<acc_t<T>>(3 * channels, 5, centre)),
        var(3 * channels, acc_t<T>(1.5)),
        grad_weight(3 * channels),
        grad_bias(3 * channels) {
    // Branches 0 and 2 alternate in the batch; branch 1 is empty.
    for (int64_t n = 0; n < samples; ++n) branch_of[n] = n % 3 == 1 ? 2 : 0;
    for (const int64_t b : {0, 2}) {
      for (int64_t n = 0; n < samples; ++n) {
        if (branch_of[n] == b) order.push_back(n);
      }
      for (int64_t later = b + 1; later <= 3; ++later) offsets[later] = static_cast<int64_t>(order.size());
    }
    shape = {samples, channels, spatial, 3, channels_last, order.data(), offsets.data(), training, relu, 1e-5};
  }

  int64_t at(int64_t n, int64_t c, int64_t s) const {
    return shape.channels_last ? (n * shape.spatial + s) * shape.channels + c
                               : (n * shape.channels + c) * shape.spatial + s;
  }

  void run() {
    mdprop::multi_batch_norm_forward_cpu<T>(
        {shape, x.data(), weight.data(), bias.data(), mean.data(), var.data(), y.data()});
    mdprop::multi_batch_norm_backward_cpu<T>({shape, grad.data(), x.data(), weight.data(), bias.data(), mean.data(),
                                              var.data(), grad_x.data(), grad_weight.data(), grad_bias.data()});
  }

  // Calls body(position in x) for every value of a (branch, channel).
  template <typename Body>
  void for_each_value(int64_t b, int64_t c, const Body& body) const {
    for (int64_t n = 0; n < shape.samples; ++n) {
      for (int64_t s = 0; branch_of[n] == b && s < shape.spatial; ++s) body(at(n, c, s));
    }
  }
};

template <typename T>
void check_channel(const Problem<T>& p, int64_t b, int64_t c, double tolerance) {
  const int64_t row = b * p.shape.channels + c;
  double count = 0, sum = 0, squares = 0;
  p.for_each_value(b, c, [&](int64_t i) { ++count, sum += mdprop::widen(p.x[i]); });
  if (count == 0) {
    CHECK(p.grad_weight[row] == 0 && p.grad_bias[row] == 0);
    if (p.shape.training) CHECK(p.mean[row] == 0 && p.var[row] == 0);
    return;
  }
  p.for_each_value(b, c, [&](int64_t i) { squares += std::pow(mdprop::widen(p.x[i]) - sum / count, 2); });
  if (p.shape.training) {
    CHECK_NEAR(p.mean[row], sum / count, tolerance * (1 + std::fabs(sum / count)) / 8);
    CHECK_NEAR(p.var[row], squares / count, tolerance);
  }
  // From here on with the statistics that the kernel rounded to its own type.
  const double mean = p.mean[row], inverse = 1 / std::sqrt(static_cast<double>(p.var[row]) + 1e-5);
  double grad_sum = 0, product_sum = 0;
  const auto normal = [&](int64_t i) { return (mdprop::widen(p.x[i]) - mean) * inverse; };
  const auto affine = [&](int64_t i) { return normal(i) * p.weight[row] + p.bias[row]; };
  // Whether relu passes a value is decided in the kernel's own arithmetic: near 0 the two may differ.
  const acc_t<T> kernel_scale = p.weight[row] * mdprop::inverse_deviation(p.var[row], 1e-5);
  const mdprop::Affine<acc_t<T>> kernel_affine{p.mean[row], kernel_scale, p.bias[row]};
  const auto incoming = [&](int64_t i) {
    const bool passes = !p.shape.relu || kernel_affine(mdprop::widen(p.x[i])) > 0;
    return passes ? static_cast<double>(mdprop::widen(p.grad[i])) : 0.0;
  };
  p.for_each_value(b, c, [&](int64_t i) {
    const double expected = p.shape.relu ? std::max(0.0, affine(i)) : affine(i);
    CHECK_NEAR(mdprop::widen(p.y[i]), expected, tolerance * (1 + std::fabs(expected)));
    grad_sum += incoming(i);
    product_sum += incoming(i) * normal(i);
  });
  CHECK_NEAR(p.grad_bias[row], grad_sum, tolerance * std::sqrt(count) * 4);
  CHECK_NEAR(p.grad_weight[row], product_sum, tolerance * std::sqrt(count) * 4);
  p.for_each_value(b, c, [&](int64_t i) {
    const double centred =
        p.shape.training ? incoming(i) - grad_sum / count - normal(i) * product_sum / count : incoming(i);
    CHECK_NEAR(mdprop::widen(p.grad_x[i]), centred * inverse * p.weight[row],
               tolerance * (1 + std::fabs(p.weight[row]) * 4));
  });
}

template <typename T>
void test_type(double tolerance) {
  const int64_t shapes[][3] = {{9, 3, 49}, {4, 2, 1024}, {4, 2, 1500}, {40, 5, 1}, {7, 130, 9}, {8, 3, 150}, {3, 1, 2}};
  for (const auto& [samples, channels, spatial] : shapes) {
    for (const bool channels_last : {false, true}) {
      for (const bool training : {false, true}) {
        for (const bool relu : {false, true}) {
          Problem<T> problem(samples, channels, spatial, channels_last, training, relu, 0.5);
          problem.run();
          for (int64_t b = 0; b < 3; ++b) {
            for (int64_t c = 0; c < channels; ++c) check_channel(problem, b, c, tolerance);
          }
        }
      }
    }
  }
}

// A mean of 10,000 deviations: sums of squares without a shift would lose every digit of the variance in fp32.
void test_large_mean() {
  for (const bool channels_last : {false, true}) {
    Problem<float> problem(16, 4, 300, channels_last, true, false, 1e4);
    problem.run();
    for (int64_t c = 0; c < 4; ++c) check_channel(problem, 0, c, 2e-5);
  }
}

// A NaN in one branch stays there.
void test_nan_stays_in_its_branch() {
  for (const bool channels_last : {false, true}) {
    Problem<float> problem(9, 3, 40, channels_last, true, false, 0);
    problem.x[problem.at(1, 0, 0)] = NAN;  // branch 2
    problem.run();
    for (int64_t c = 0; c < 3; ++c) check_channel(problem, 0, c, 2e-5);
    CHECK(std::isnan(problem.y[problem.at(4, 0, 5)]));
    CHECK(!std::isnan(problem.y[problem.at(4, 1, 5)]));
  }
}

}  // namespace

int main() {
  test_type<float>(2e-5);
  test_type<double>(1e-12);
  test_type<mdprop::BFloat16>(2e-2);
  test_type<mdprop::Half>(3e-3);
  test_large_mean();
  test_nan_stays_in_its_branch();
  return test_summary();
}
