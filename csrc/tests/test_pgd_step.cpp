// pgd_step against a naive loop in fp64, its promises on ball and box, and the random numbers of random_start.
#include <algorithm>
#include <cmath>
#include <vector>

#include "pgd_step/pgd_step.h"
#include "pgd_step/pgd_step_l1_math.h"
#include "pgd_step/pgd_step_math.h"
#include "pgd_step/random_start_math.h"
#include "tests/check.h"
#include "tests/pgd_step_problem.h"

namespace {

using mdprop::acc_t;
using mdprop::PgdNorm;
using mdprop_test::PgdOptions;
using mdprop_test::PgdProblem;

// delta pulled back onto the ball, and for l1 onto the box [low, high] round the origin too, by plain bisection.
std::vector<double> pull_back(PgdNorm norm, const std::vector<double>& delta, double radius,
                              const std::vector<double>& low, const std::vector<double>& high) {
  std::vector<double> pulled = delta;
  double squares = 0;
  for (const double d : delta) squares += d * d;
  const double shrink = std::min(1.0, radius / std::sqrt(squares));
  if (norm != PgdNorm::kL1) {
    for (double& d : pulled) d = norm == PgdNorm::kL2 ? d * shrink : std::clamp(d, -radius, radius);
    return pulled;
  }
  double from = 0, to = 10;
  for (int iteration = 0; iteration < 100; ++iteration) {
    const double lambda = iteration == 0 ? 0 : (from + to) / 2;
    double sum = 0;
    for (size_t i = 0; i < delta.size(); ++i) {
      const double soft = std::copysign(std::max(std::fabs(delta[i]) - lambda, 0.0), delta[i]);
      pulled[i] = std::clamp(soft, low[i], high[i]);
      sum += std::fabs(pulled[i]);
    }
    if (iteration == 0 && sum <= radius) break;
    (sum > radius ? from : to) = lambda;
  }
  return pulled;
}

template <typename T>
void check_sample(const PgdProblem<T>& problem, const std::vector<T>& out, int64_t n, double tolerance) {
  const int64_t size = problem.args.sample_size, start = n * size;
  const PgdNorm norm = problem.args.norm;
  const double radius = problem.radius[n];
  double grad_norm = 0;
  for (int64_t i = start; i < start + size; ++i) grad_norm += std::pow(mdprop::widen(problem.grad[i]), 2);
  std::vector<double> delta(size), low(size), high(size);
  bool inside = true;  // an origin outside the box is moved into it, whatever the radius
  for (int64_t i = 0; i < size; ++i) {
    const double g = mdprop::widen(problem.grad[start + i]), origin = problem.origin_at(start + i);
    const double direction = norm == PgdNorm::kL2 ? g / std::sqrt(grad_norm) : (g > 0) - (g < 0);
    delta[i] = mdprop::widen(problem.x[start + i]) + problem.step[n] * direction - origin;
    low[i] = 0.3 - origin;
    high[i] = 0.7 - origin;
    inside = inside && low[i] <= 0 && high[i] >= 0;
  }
  const std::vector<double> pulled = pull_back(norm, delta, radius, low, high);
  double sum = 0, squares = 0, greatest = 0;
  for (int64_t i = 0; i < size; ++i) {
    const double origin = problem.origin_at(start + i), y = mdprop::widen(out[start + i]);
    CHECK_NEAR(y, std::clamp(origin + pulled[i], 0.3, 0.7), tolerance);
    CHECK(y >= acc_t<T>(0.3) && y <= acc_t<T>(0.7));
    const double distance = std::fabs(y - origin);
    sum += distance;
    squares += distance * distance;
    greatest = std::max(greatest, distance);
  }
  if (!inside) return;
  if (norm == PgdNorm::kLinf) CHECK(greatest <= radius * (1 + 1e-7));
  if (norm == PgdNorm::kL2) CHECK(std::sqrt(squares) <= radius);
  if (norm == PgdNorm::kL1) CHECK(sum <= radius);
}

template <typename T>
void test_against_loop(double tolerance) {
  for (const PgdNorm norm : mdprop_test::kNorms) {
    for (const int64_t size : {1, 5, 1023, 1024, 1025, 9000}) {
      for (const bool tensor_bounds : {false, true}) {
        PgdOptions options{norm};
        options.own_bounds = tensor_bounds;
        PgdProblem<T> problem(3, size, options);
        std::vector<T> out(problem.x.size());
        problem.args.out = out.data();
        mdprop::pgd_step_cpu(problem.args);
        for (int64_t n = 0; n < 3; ++n) check_sample(problem, out, n, tolerance);
      }
    }
  }
}

void test_special_values() {
  for (const PgdNorm norm : mdprop_test::kNorms) {
    PgdProblem<float> problem(1, 4, PgdOptions{norm});
    std::vector<float> out(4);
    problem.x = {0.5f, NAN, 0.5f, 0.5f};
    problem.grad = {0, 0, 0, 0};
    problem.origin = {0.5f, 0.5f, 0.5f, 0.5f};
    problem.args.x = problem.x.data();
    problem.args.grad = problem.grad.data();
    problem.args.origin = problem.origin.data();
    problem.args.out = out.data();
    mdprop::pgd_step_cpu(problem.args);
    if (norm != PgdNorm::kL2) CHECK(out[0] == 0.5f);  // a zero gradient moves nothing
    CHECK(std::isnan(out[1]));
  }
  CHECK(mdprop::sign(NAN) == 0 && mdprop::sign(-0.0f) == 0 && mdprop::sign(-2.0f) == -1);
}

// The search ends after few passes whatever the values, and uses up the radius without exceeding it.
template <typename Acc>
void test_l1_search(double limit_exponent) {
  std::mt19937 generator(6);
  std::normal_distribution<double> normal;
  for (int trial = 0; trial < 400; ++trial) {
    const int64_t size = 1 + trial % 50;
    const double spread = trial % 4 == 0 ? limit_exponent * 0.4 : trial % 4;
    std::vector<Acc> reach(size), room(size);
    for (int64_t i = 0; i < size; ++i) {
      reach[i] = static_cast<Acc>(std::exp2(normal(generator) * spread));
      room[i] = trial % 3 == 0 ? Acc(INFINITY) : static_cast<Acc>(std::exp2(normal(generator)));
      if (trial % 5 == 0) reach[i] = reach[0];
    }
    const auto sums_for = [&](Acc lambda) {
      mdprop::L1Sums sums;
      for (int64_t i = 0; i < size; ++i) {
        const Acc above = reach[i] - lambda;
        sums += {static_cast<double>(mdprop::l1_pull(reach[i], room[i], lambda)), above > 0 && above < room[i],
                 above > 0 && above >= room[i]};
      }
      return sums;
    };
    const double all = sums_for(0).total, radius = all * std::exp2(-trial % 30);
    mdprop::L1Search<Acc> search(radius, sums_for(0));
    int passes = 0;
    for (; search.searching(); ++passes) search.update(sums_for(search.lambda()));
    CHECK(passes <= 16 + 8 * static_cast<int>(sizeof(Acc)));
    double total = 0;
    for (int64_t i = 0; i < size; ++i) {
      total += search.solution().high > 0 ? search.solution().pull(reach[i], room[i])
                                          : mdprop::l1_pull(reach[i], room[i], Acc(0));
    }
    CHECK(total <= radius && total >= radius * (1 - 8e-7));
  }
}

// The published known-answer tests of Philox4x32-10.
void test_philox() {
  const auto check = [](mdprop::PhiloxWords counter, uint64_t seed, mdprop::PhiloxWords expected) {
    const mdprop::PhiloxWords result = mdprop::philox(counter, seed);
    for (int w = 0; w < 4; ++w) CHECK(result.words[w] == expected.words[w]);
  };
  check({{0, 0, 0, 0}}, 0, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}});
  check({{~0u, ~0u, ~0u, ~0u}}, ~uint64_t{0}, {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}});
  check({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0x299f31d0a4093822,
        {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}});
}

void test_elementary_functions() {
  for (uint64_t word = 0; word < uint64_t{1} << 32; word += 104729) {
    const auto w = static_cast<uint32_t>(word);
    float sine, cosine;
    mdprop::sine_cosine(w, sine, cosine);
    const double angle = 2 * M_PI * static_cast<double>(w) / 0x1p32;
    CHECK_NEAR(sine, std::sin(angle), 2e-7);
    CHECK_NEAR(cosine, std::cos(angle), 2e-7);
    const float uniform = (static_cast<float>(w >> 1) + 0.5f) * 0x1p-31f;
    const double expected = -std::log(static_cast<double>(uniform));
    CHECK_NEAR(mdprop::exponential(w), expected, 2e-7 * expected);
    CHECK(std::fabs(mdprop::signed_uniform(w)) < 1);
  }
  CHECK(mdprop::signed_uniform(0) == -mdprop::signed_uniform(~0u));
  CHECK_NEAR(mdprop::exponential(0), 32 * std::log(2.0), 2e-6);
  CHECK(mdprop::exponential(~0u) >= 0);
}

}  // namespace

int main() {
  test_against_loop<float>(2e-6);
  test_against_loop<double>(1e-13);
  test_against_loop<mdprop::BFloat16>(0.008);
  test_against_loop<mdprop::Half>(0.001);
  test_special_values();
  test_l1_search<float>(120);
  test_l1_search<double>(900);
  test_philox();
  test_elementary_functions();
  return test_summary();
}
