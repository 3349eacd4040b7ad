// The formulas of one pair and of its gradient, in fp64, and distances as integers in their order.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "common/numeric.h"
#include "knn_topk/knn_topk.h"

MDPROP_ISA_BEGIN

MDPROP_HOST_DEVICE bool is_euclidean(KnnMetric metric) {
  return metric == KnnMetric::kSquaredEuclidean || metric == KnnMetric::kEuclidean;
}

// The distance before its one rounding. sum: of (q - x)^2 for the euclidean metrics, else <q, x>. Only the cosine reads
// <q, q> and <x, x>.
MDPROP_HOST_DEVICE double distance_from_sums(KnnMetric metric, double sum, double query_square, double point_square) {
  if (metric == KnnMetric::kSquaredEuclidean) return sum;
  if (metric == KnnMetric::kEuclidean) return std::sqrt(sum);
  if (metric == KnnMetric::kDot) return -sum;
  if (query_square == 0 || point_square == 0) return 1;
  const double distance = 1 - sum / (std::sqrt(query_square) * std::sqrt(point_square));
  return distance < 0 ? 0 : distance > 2 ? 2 : distance;
}

// Rounds once; adding zero turns -0 into +0.
template <typename A>
MDPROP_HOST_DEVICE A round_distance(double distance) {
  return static_cast<A>(distance) + A(0);
}

// Integers in the order of the values of A, NaN last: integer loops vectorise where floating-point minima do not, and
// digits of integers can be counted.
template <typename A>
struct Order {
  using Key = std::conditional_t<sizeof(A) == 8, int64_t, int32_t>;
  static constexpr Key kLast = static_cast<Key>(~(std::make_unsigned_t<Key>{1} << (8 * sizeof(Key) - 1)));

  static MDPROP_HOST_DEVICE Key key(A value) {
    const Key bits = bit_cast<Key>(value);
    return value != value ? kLast : bits < 0 ? bits ^ kLast : bits;
  }
  static MDPROP_HOST_DEVICE A value(Key key) { return bit_cast<A>(key < 0 ? key ^ kLast : key); }
};

// grad * d(distance)/d(query) = across * (point - shift * query) + query_own * query, and the same for the point with
// the rows exchanged; shift is 1 for the euclidean metrics, so that near rows do not cancel, else 0.
struct PairWeights {
  double across, query_own, point_own;
};

// Only the cosine reads <q, x>, <q, q> and <x, x>.
MDPROP_HOST_DEVICE PairWeights pair_weights(KnnMetric metric, double grad, double distance, double product,
                                            double query_square, double point_square) {
  if (metric == KnnMetric::kSquaredEuclidean) return {-2 * grad, 0, 0};
  if (metric == KnnMetric::kEuclidean) return {distance == 0 ? 0 : -grad / distance, 0, 0};
  if (metric == KnnMetric::kDot) return {-grad, 0, 0};
  if (query_square == 0 || point_square == 0) return {0, 0, 0};
  const double inverse = 1 / (std::sqrt(query_square) * std::sqrt(point_square));
  const double cosine = product * inverse;
  return {-grad * inverse, grad * cosine / query_square, grad * cosine / point_square};
}

MDPROP_ISA_END
