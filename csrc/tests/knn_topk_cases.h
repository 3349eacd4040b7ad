// What the tests of knn_topk share: problems, and a plain double loop that the same bits are asked of.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "check.h"
#include "knn_topk/knn_topk.h"

namespace knn_topk_cases {

using mdprop::BFloat16;
using mdprop::Half;
using mdprop::KnnMetric;

constexpr KnnMetric kMetrics[] = {KnnMetric::kSquaredEuclidean, KnnMetric::kEuclidean, KnnMetric::kCosine,
                                  KnnMetric::kDot};
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The order of additions is part of the contract, so the loop spells it out.
template <typename Term>
double sum_in_order(int64_t count, const Term& term) {
  double lanes[8] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i % 8] += term(i);
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

template <typename T>
double naive_distance(KnnMetric metric, const T* q, const T* x, int64_t dim) {
  using mdprop::widen;
  const auto product = [&](const T* a, const T* b) {
    return sum_in_order(dim,
                        [&](int64_t i) { return static_cast<double>(widen(a[i])) * static_cast<double>(widen(b[i])); });
  };
  if (metric == KnnMetric::kDot) return -product(q, x);
  if (metric == KnnMetric::kCosine) {
    const double qq = product(q, q), xx = product(x, x);
    if (qq == 0 || xx == 0) return 1;
    const double distance = 1 - product(q, x) / (std::sqrt(qq) * std::sqrt(xx));
    return std::isnan(distance) ? distance : std::min(2.0, std::max(0.0, distance));
  }
  const double square = sum_in_order(dim, [&](int64_t i) {
    const double difference = static_cast<double>(widen(q[i])) - static_cast<double>(widen(x[i]));
    return difference * difference;
  });
  return metric == KnnMetric::kEuclidean ? std::sqrt(square) : square;
}

template <typename T>
T store(double value) {
  return mdprop::narrow<T>(static_cast<mdprop::acc_t<T>>(value));
}

template <typename T>
struct Problem {
  std::vector<T> queries, points;
  int64_t num_queries, num_points, dim;
};

template <typename T>
struct Result {
  std::vector<mdprop::acc_t<T>> distances;
  std::vector<int64_t> indices;
};

struct Groups {
  const int64_t* query_offsets;
  const int64_t* point_offsets;
  int64_t count;
};

template <typename T>
Result<T> search(const Problem<T>& problem, int64_t k, KnnMetric metric, const Groups& groups = {nullptr, nullptr, 1}) {
  Result<T> result{std::vector<mdprop::acc_t<T>>(problem.num_queries * k, -7),
                   std::vector<int64_t>(problem.num_queries * k, -7)};
  mdprop::knn_topk_cpu<T>({problem.queries.data(), problem.points.data(), result.distances.data(),
                           result.indices.data(), problem.num_queries, problem.num_points, problem.dim, k, metric,
                           groups.query_offsets, groups.point_offsets, groups.count});
  return result;
}

template <typename T>
void check_problem(const Problem<T>& problem, int64_t k, KnnMetric metric, const char* name) {
  using Acc = mdprop::acc_t<T>;
  const Result<T> result = search(problem, k, metric);
  std::vector<std::pair<Acc, int64_t>> pairs(problem.num_points);
  for (int64_t q = 0; q < problem.num_queries; ++q) {
    for (int64_t i = 0; i < problem.num_points; ++i) {
      const double distance = naive_distance(metric, problem.queries.data() + q * problem.dim,
                                             problem.points.data() + i * problem.dim, problem.dim);
      pairs[i] = {static_cast<Acc>(distance) + Acc(0), i};
    }
    const int64_t found = std::min(k, problem.num_points);
    std::partial_sort(pairs.begin(), pairs.begin() + found, pairs.end(), [](const auto& a, const auto& b) {
      if (std::isnan(a.first) || std::isnan(b.first)) {
        return std::isnan(a.first) == std::isnan(b.first) ? a.second < b.second : std::isnan(b.first);
      }
      return a < b;
    });
    pairs.resize(std::max(k, problem.num_points), {static_cast<Acc>(kInfinity), -1});
    bool equal = true;
    for (int64_t j = 0; j < k; ++j) {
      const Acc got = result.distances[q * k + j], expected = pairs[j].first;
      equal = equal && result.indices[q * k + j] == pairs[j].second &&
              (std::isnan(expected) ? std::isnan(got) : std::memcmp(&got, &expected, sizeof(Acc)) == 0);
    }
    if (!CHECK(equal)) {
      std::printf("  %s, metric %d, D %d, N %d, k %d, query %d, %d-byte values\n", name, static_cast<int>(metric),
                  static_cast<int>(problem.dim), static_cast<int>(problem.num_points), static_cast<int>(k),
                  static_cast<int>(q), static_cast<int>(sizeof(T)));
      return;
    }
    pairs.resize(problem.num_points);
  }
}

template <typename T, typename Value>
Problem<T> make_problem(int64_t num_queries, int64_t num_points, int64_t dim, const Value& value) {
  Problem<T> problem{std::vector<T>(num_queries * dim), std::vector<T>(num_points * dim), num_queries, num_points, dim};
  for (int64_t i = 0; i < num_points * dim; ++i) problem.points[i] = store<T>(value(i / std::max<int64_t>(dim, 1), i));
  for (int64_t i = 0; i < num_queries * dim; ++i)
    problem.queries[i] = store<T>(value(-1 - i / std::max<int64_t>(dim, 1), i));
  return problem;
}

}  // namespace knn_topk_cases
