// pgd_step against a naive loop in fp64, and its promises on ball and box.
#include <algorithm>
#include <cmath>
#include <vector>

#include "pgd_step/pgd_step.h"
#include "pgd_step/pgd_step_math.h"
#include "tests/check.h"
#include "tests/random.h"

namespace {

using mdprop::acc_t;
using mdprop::PgdNorm;

template <typename T>
struct Problem {
  std::vector<T> x, grad, origin, out;
  std::vector<double> step, radius;
  std::vector<acc_t<T>> lower, upper;
  mdprop::PgdStepArgs<T> args;

  Problem(int64_t samples, int64_t size, PgdNorm norm, bool tensor_bounds)
      : x(mdprop_test::normal_values<T>(samples * size, 1, 0.5, 0.2)),
        grad(mdprop_test::normal_values<T>(samples * size, 2)),
        origin(mdprop_test::normal_values<T>(samples * size, 3, 0.5, 0.05)),
        out(samples * size) {
    const double scale = norm == PgdNorm::kL2 ? std::sqrt(static_cast<double>(size)) : 1;
    for (int64_t n = 0; n < samples; ++n) {
      step.push_back(0.03 * scale * static_cast<double>(n + 1));
      radius.push_back(0.1 * scale / static_cast<double>(n + 1));
    }
    lower.assign(tensor_bounds ? samples * size : 1, acc_t<T>(0.3));
    upper.assign(tensor_bounds ? samples * size : 1, acc_t<T>(0.7));
    args = {x.data(),
            grad.data(),
            origin.data(),
            out.data(),
            step.data(),
            radius.data(),
            lower.data(),
            upper.data(),
            1,
            1,
            tensor_bounds ? 1 : 0,
            samples,
            size,
            norm};
  }

  double x_at(int64_t i) const { return mdprop::widen(x[i]); }
  double grad_at(int64_t i) const { return mdprop::widen(grad[i]); }
  double origin_at(int64_t i) const { return mdprop::widen(origin[i]); }
  double out_at(int64_t i) const { return mdprop::widen(out[i]); }
};

template <typename T>
void check_sample(const Problem<T>& problem, int64_t n, double tolerance) {
  const int64_t size = problem.args.sample_size, start = n * size;
  const bool l2 = problem.args.norm == PgdNorm::kL2;
  double grad_norm = 0, delta_norm = 0, result_norm = 0, result_max = 0;
  for (int64_t i = start; i < start + size; ++i) grad_norm += problem.grad_at(i) * problem.grad_at(i);
  grad_norm = std::sqrt(grad_norm);
  std::vector<double> delta(size);
  for (int64_t i = 0; i < size; ++i) {
    const double g = problem.grad_at(start + i), sign = (g > 0) - (g < 0);
    const double direction = l2 ? g / grad_norm : sign;
    delta[i] = problem.x_at(start + i) + problem.step[n] * direction - problem.origin_at(start + i);
    delta_norm += delta[i] * delta[i];
  }
  delta_norm = std::sqrt(delta_norm);
  for (int64_t i = 0; i < size; ++i) {
    const double radius = problem.radius[n], origin = problem.origin_at(start + i), out = problem.out_at(start + i);
    const double pulled = l2 ? delta[i] * std::min(1.0, radius / delta_norm) : std::clamp(delta[i], -radius, radius);
    CHECK_NEAR(out, std::clamp(origin + pulled, 0.3, 0.7), tolerance);
    CHECK(out >= acc_t<T>(0.3) && out <= acc_t<T>(0.7));
    result_norm += (out - origin) * (out - origin);
    // An origin outside the box is moved into it, whatever the radius.
    if (origin >= 0.3 && origin <= 0.7) result_max = std::max(result_max, std::fabs(out - origin));
  }
  if (!l2) CHECK(result_max <= problem.radius[n] * (1 + 1e-7));
  const bool origin_inside = std::all_of(problem.origin.begin() + start, problem.origin.begin() + start + size,
                                         [](T o) { return mdprop::widen(o) >= 0.3 && mdprop::widen(o) <= 0.7; });
  if (l2 && origin_inside) CHECK(std::sqrt(result_norm) <= problem.radius[n]);
}

template <typename T>
void test_against_loop(double tolerance) {
  for (const PgdNorm norm : {PgdNorm::kLinf, PgdNorm::kL2}) {
    for (const int64_t size : {1, 5, 1023, 1024, 1025, 9000}) {
      for (const bool tensor_bounds : {false, true}) {
        Problem<T> problem(3, size, norm, tensor_bounds);
        mdprop::pgd_step_cpu(problem.args);
        for (int64_t n = 0; n < 3; ++n) check_sample(problem, n, tolerance);
      }
    }
  }
}

void test_special_values() {
  for (const PgdNorm norm : {PgdNorm::kLinf, PgdNorm::kL2}) {
    Problem<float> problem(1, 4, norm, false);
    problem.x = {0.5f, NAN, 0.5f, 0.5f};
    problem.grad = {0, 0, 0, 0};
    problem.origin = {0.5f, 0.5f, 0.5f, 0.5f};
    mdprop::pgd_step_cpu(problem.args);
    if (norm == PgdNorm::kLinf) CHECK(problem.out[0] == 0.5f);  // a zero gradient moves nothing
    CHECK(std::isnan(problem.out[1]));
  }
  CHECK(mdprop::sign(NAN) == 0 && mdprop::sign(-0.0f) == 0 && mdprop::sign(-2.0f) == -1);
}

}  // namespace

int main() {
  test_against_loop<float>(2e-6);
  test_against_loop<double>(1e-14);
  test_against_loop<mdprop::BFloat16>(0.008);
  test_against_loop<mdprop::Half>(0.001);
  test_special_values();
  return test_summary();
}
