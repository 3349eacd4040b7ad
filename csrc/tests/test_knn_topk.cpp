// knn_topk against a plain double loop: the same bits are asked for, on data with ties, NaN, infinities and extreme
// norms.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "check.h"
#include "knn_topk_cases.h"

namespace {

using namespace knn_topk_cases;

// Every metric and several k, on either side of the number of points.
template <typename T>
void check_all(const Problem<T>& problem, const char* name) {
  for (KnnMetric metric : kMetrics) {
    for (int64_t k : {int64_t{1}, int64_t{10}, problem.num_points + 3}) check_problem(problem, k, metric, name);
  }
}

template <typename T>
void test_random() {
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  for (int64_t dim : {1, 3, 17, 64, 200}) {
    const auto gaussian = make_problem<T>(25, 700, dim, [&](int64_t, int64_t) { return normal(random); });
    check_all(gaussian, "gaussian");
    const auto shifted = make_problem<T>(13, 500, dim, [&](int64_t, int64_t) { return 1000 + normal(random); });
    check_all(shifted, "far from the origin");
  }
  for (int64_t num_points : {0, 1, 31, 33}) {
    for (int64_t num_queries : {0, 1, 7}) {
      check_all(make_problem<T>(num_queries, num_points, 5, [&](int64_t, int64_t) { return normal(random); }),
                "few rows");
    }
  }
  check_all(make_problem<T>(3, 40, 0, [](int64_t, int64_t) { return 0.0; }), "no features");
}

template <typename T>
void test_ties() {
  std::mt19937 random(2);
  check_all(make_problem<T>(20, 900, 3, [&](int64_t, int64_t) { return static_cast<int>(random() % 3) - 1; }),
            "small integers");
  check_all(make_problem<T>(5, 900, 17, [](int64_t, int64_t i) { return i % 17 * 0.37; }), "all rows equal");
  check_all(make_problem<T>(5, 600, 4, [&](int64_t, int64_t) { return random() % 2 ? 0.0 : -0.0; }), "signed zeros");
  check_all(make_problem<T>(9, 600, 8, [](int64_t row, int64_t) { return row % 2 ? 0.0 : 1.0 + row % 3; }),
            "parallel and zero rows");
  // Differences far below the resolution of the filter: only the exact distances can order them.
  const double grain = sizeof(T) == 2 ? 0x1p-7 : sizeof(T) == 4 ? 0x1p-22 : 0x1p-51;
  check_all(make_problem<T>(6, 900, 40, [&](int64_t, int64_t) { return 1 + grain * (random() % 4); }),
            "nearly equal rows");
}

template <typename T>
void test_extremes() {
  std::mt19937 random(3);
  std::normal_distribution<double> normal;
  for (double special : {static_cast<double>(NAN), kInfinity, -kInfinity}) {
    // Every third row of points and some queries hold one special value, so k > N * 2 / 3 reaches them.
    check_all(make_problem<T>(7, 500, 9,
                              [&](int64_t row, int64_t i) {
                                return (row % 3 == 0 || row == -3) && i % 9 == 4 ? special : normal(random);
                              }),
              "special values");
    check_all(make_problem<T>(2, 300, 2, [&](int64_t, int64_t) { return special; }), "only special values");
  }
  const bool half = sizeof(T) == 2;
  for (double scale : {half ? 3e4 : 1e37, half ? 1e-7 : 1e-39, half ? 1e3 : 1e18, 1e-20, sizeof(T) == 8 ? 1e160 : 1.0,
                       sizeof(T) == 8 ? 1e-170 : 1.0}) {
    const auto scaled = [&](int64_t, int64_t) { return std::min(scale * normal(random), half ? 6e4 : 1e300); };
    check_all(make_problem<T>(7, 400, 17, scaled), "extreme norms");
    check_all(make_problem<T>(7, 400, 17, [&](int64_t row, int64_t) { return normal(random) * (row % 2 ? scale : 1); }),
              "mixed norms");
  }
}

// Shapes at which points are cut into ranges, and at which they pass in several blocks; odd k against capacities.
void test_large() {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  const auto value = [&](int64_t, int64_t) { return normal(random); };
  for (KnnMetric metric : kMetrics) {
    check_problem(make_problem<float>(3, 40000, 16, value), 7, metric, "ranges");
    check_problem(make_problem<float>(100, 20000, 17, value), 7, metric, "blocks");
    check_problem(make_problem<double>(2, 30000, 3, value), 300, metric, "large k");
    check_problem(make_problem<Half>(97, 3000, 130, value), 99, metric, "wide");
  }
}

template <typename T>
void test_backward() {
  using Acc = mdprop::acc_t<T>;
  std::mt19937 random(5);
  std::normal_distribution<double> normal;
  const int64_t num_queries = 9, num_points = 20, dim = 11, k = 23;  // three places of padding a query
  auto problem = make_problem<T>(num_queries, num_points, dim, [&](int64_t, int64_t) { return normal(random); });
  std::copy_n(problem.points.begin(), dim, problem.queries.begin());  // a distance of zero
  std::fill_n(problem.points.begin() + dim, dim, store<T>(0));        // a zero point
  std::fill_n(problem.queries.begin() + dim, dim, store<T>(0));       // a zero query
  std::vector<Acc> grad(num_queries * k);
  for (Acc& value : grad) value = static_cast<Acc>(normal(random));
  for (KnnMetric metric : kMetrics) {
    const Result<T> found = search(problem, k, metric);
    std::vector<T> grad_queries(num_queries * dim), grad_points(num_points * dim);
    mdprop::knn_topk_backward_cpu<T>({grad.data(), problem.queries.data(), problem.points.data(),
                                      found.distances.data(), found.indices.data(), grad_queries.data(),
                                      grad_points.data(), num_queries, num_points, dim, k, metric});
    std::vector<double> expected_queries(num_queries * dim), expected_points(num_points * dim);
    for (int64_t pair = 0; pair < num_queries * k; ++pair) {
      if (found.indices[pair] < 0) continue;
      const T* q = problem.queries.data() + pair / k * dim;
      const T* x = problem.points.data() + found.indices[pair] * dim;
      const auto at = [](const T* row, int64_t i) { return static_cast<double>(mdprop::widen(row[i])); };
      const auto product = [&](const T* a, const T* b) {
        return sum_in_order(dim, [&](int64_t i) { return at(a, i) * at(b, i); });
      };
      const double distance = naive_distance(metric, q, x, dim), qq = product(q, q), xx = product(x, x),
                   qx = product(q, x);
      for (int64_t i = 0; i < dim; ++i) {
        double by_query = 0, by_point = 0;
        if (metric == KnnMetric::kDot) {
          by_query = -at(x, i), by_point = -at(q, i);
        } else if (metric == KnnMetric::kCosine) {
          if (qq > 0 && xx > 0) {
            by_query = -at(x, i) / std::sqrt(qq * xx) + qx / std::sqrt(qq * xx) / qq * at(q, i);
            by_point = -at(q, i) / std::sqrt(qq * xx) + qx / std::sqrt(qq * xx) / xx * at(x, i);
          }
        } else {
          const double slope = metric == KnnMetric::kSquaredEuclidean ? 2 : distance > 0 ? 1 / distance : 0;
          by_query = slope * (at(q, i) - at(x, i)), by_point = -by_query;
        }
        expected_queries[pair / k * dim + i] += grad[pair] * by_query;
        expected_points[found.indices[pair] * dim + i] += grad[pair] * by_point;
      }
    }
    // One rounding to T of sums below 32, and of the saved distance to fp32.
    const double tolerance = sizeof(T) == 8 ? 1e-12 : sizeof(T) == 4 ? 1e-5 : 0.2;
    for (int64_t i = 0; i < num_queries * dim; ++i)
      CHECK_NEAR(mdprop::widen(grad_queries[i]), expected_queries[i], tolerance);
    for (int64_t i = 0; i < num_points * dim; ++i)
      CHECK_NEAR(mdprop::widen(grad_points[i]), expected_points[i], tolerance);
  }
}

template <typename T>
void test_type() {
  test_random<T>();
  test_ties<T>();
  test_extremes<T>();
  test_backward<T>();
}

}  // namespace

int main() {
  test_type<float>();
  test_type<double>();
  test_type<BFloat16>();
  test_type<Half>();
  test_large();
  return test_summary();
}
