// Sums over the dimensions on the CPU: fp64, in an order that every instruction set and the CUDA kernels share.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/simd.h"
#include "knn_topk/knn_topk_math.h"

MDPROP_ISA_BEGIN

// Eight partial sums, added in a fixed order: every instruction set gives the same bits.
typedef double SumLanes __attribute__((vector_size(64)));

inline double sum_lanes(const SumLanes& lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// Eight values, widened exactly.
template <typename T>
inline void load_lanes(const T* from, SumLanes* lanes) {
  typedef acc_t<T> Values __attribute__((vector_size(8 * sizeof(acc_t<T>))));
  Values values;
  if constexpr (sizeof(T) == sizeof(acc_t<T>)) {
    std::memcpy(&values, from, sizeof(values));
  } else {
    acc_t<T> buffer[8];
    widen_tile(from, buffer, 8);
    std::memcpy(&values, buffer, sizeof(values));
  }
#if defined(__AVX512F__)
  if constexpr (sizeof(acc_t<T>) == 4) {
    *lanes = _mm512_maskz_cvtps_pd(0xff, values);  // gcc makes four instructions of the line below
    return;
  }
#endif
  *lanes = __builtin_convertvector(values, SumLanes);
}

// Adds term(a[i], b[i]) to lane i % 8 for every i, then the lanes. Zeros fill the last lanes: terms of two zeros must
// be 0.
template <typename T, typename Term>
inline double sum_terms(const T* a, const T* b, int64_t dim, const Term& term) {
  SumLanes sum = {}, x, y;
  int64_t i = 0;
  for (; i + 8 <= dim; i += 8) {
    load_lanes(a + i, &x);
    load_lanes(b + i, &y);
    term(x, y, &sum);
  }
  if (i < dim) {
    T a_tail[8] = {}, b_tail[8] = {};
    std::memcpy(a_tail, a + i, (dim - i) * sizeof(T));
    std::memcpy(b_tail, b + i, (dim - i) * sizeof(T));
    load_lanes(a_tail, &x);
    load_lanes(b_tail, &y);
    term(x, y, &sum);
  }
  return sum_lanes(sum);
}

template <typename T>
inline double dot_product(const T* a, const T* b, int64_t dim) {
  return sum_terms(a, b, dim, [](const SumLanes& x, const SumLanes& y, SumLanes* sum) { *sum += x * y; });
}

template <typename T>
inline double squared_distance(const T* a, const T* b, int64_t dim) {
  return sum_terms(a, b, dim, [](const SumLanes& x, const SumLanes& y, SumLanes* sum) {
    const SumLanes difference = x - y;
    *sum += difference * difference;
  });
}

// The distance that decides, before its one rounding to acc_t<T>. query_square is <q, q>; only the cosine reads it.
template <typename T>
inline double pair_distance(KnnMetric metric, const T* query, double query_square, const T* point, int64_t dim) {
  const double sum = is_euclidean(metric) ? squared_distance(query, point, dim) : dot_product(query, point, dim);
  const double point_square = metric == KnnMetric::kCosine ? dot_product(point, point, dim) : 0;
  return distance_from_sums(metric, sum, query_square, point_square);
}

MDPROP_ISA_END
