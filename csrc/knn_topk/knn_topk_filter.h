// The filter's packed operands and its register-blocked kernel.
#pragma once

#include <cstdint>
#include <limits>

#include "common/simd.h"
#include "knn_topk/knn_topk_bound.h"
#include "knn_topk/knn_topk_candidates.h"

MDPROP_ISA_BEGIN

// A panel of kRows queries meets a tile of kPoints points: kRows * kVectors sums stay in registers, beside one vector
// of each kind of operand.
template <typename A>
struct Block {
  static constexpr int kRows = Simd<A>::kRegisters == 32 ? 12 : 6;
  static constexpr int kVectors = 2;
  static constexpr int kPoints = kVectors * Simd<A>::kLanes;
};

// Rows as the filter sees them: centred, or of unit length, or as they are.
template <typename T>
class RowTransform {
  using A = acc_t<T>;

 public:
  RowTransform(const KnnTopkArgs<T>& args) : bound_(args.metric, args.dim), centre_(args.dim) {
    for (int64_t d = 0; d < args.dim; ++d) centre_[d] = 0;
    if (bound_.euclidean()) find_centre(args);
  }

  const FilterBound<A>& bound() const { return bound_; }

  // Writes a row in filter form and returns its squared norm before scaling to unit length.
  double apply(const T* row, bool unit, A* out) {
    const int64_t dim = centre_.size();
    if constexpr (sizeof(T) == sizeof(A)) {
      subtract_centre(row, out);
    } else {
      widen_tile(row, out, dim);
      subtract_centre(out, out);
    }
    const double square = dot_product(out, out, dim);
    if (unit && square > 0) {
      const double inverse = 1 / std::sqrt(square);
      for (int64_t d = 0; d < dim; ++d) out[d] = static_cast<A>(out[d] * inverse);
    }
    return square;
  }

 private:
  void subtract_centre(const A* row, A* out) {
    const A* centre = centre_.data();  // zero unless euclidean
    for (int64_t d = 0; d < centre_.size(); ++d) out[d] = row[d] - centre[d];
  }

  // Any centre is right; the mean of a sample makes the rounding bound small relative to the distances.
  void find_centre(const KnnTopkArgs<T>& args) {
    constexpr int64_t kSample = 256;
    const int64_t count = args.num_points < kSample ? args.num_points : kSample;
    Scratch<double> sum(args.dim);
    for (int64_t d = 0; d < args.dim; ++d) sum[d] = 0;
    for (int64_t i = 0; i < count; ++i) {
      const T* row = args.points + args.num_points * i / count * args.dim;
      for (int64_t d = 0; d < args.dim; ++d) sum[d] += widen(row[d]);
    }
    for (int64_t d = 0; d < args.dim; ++d) {
      const A mean = static_cast<A>(sum[d] / count);
      centre_[d] = std::fabs(mean) < std::numeric_limits<A>::max() ? mean : A(0);
    }
  }

  FilterBound<A> bound_;
  Scratch<A> centre_;  // [D]
};

// A tile of points in filter form.
template <typename A>
struct PackedTile {
  A* values;  // [D, kPoints]
  A* bias;    // [kPoints]
  A* width;   // [kPoints] 2 reach, NaN where unbounded
};

// Several tiles, so that a panel of queries meets them in the cache.
template <typename A>
class PackedBlock {
  static constexpr int64_t kPoints = Block<A>::kPoints;

 public:
  PackedBlock(int64_t tiles, int64_t dim)
      : dim_(dim), values_(tiles * kPoints * dim), bias_(tiles * kPoints), width_(tiles * kPoints) {}

  PackedTile<A> tile(int64_t t) {
    return {values_.data() + t * kPoints * dim_, bias_.data() + t * kPoints, width_.data() + t * kPoints};
  }

 private:
  int64_t dim_;
  Scratch<A> values_, bias_, width_;
};

// sums[r][v] = bias + panel[., r] . tile[., v]; panels hold negated queries.
template <typename A>
[[gnu::always_inline]] inline void multiply_tile(
    const A* MDPROP_RESTRICT panel /* [D, kRows] */, const A* MDPROP_RESTRICT tile /* [D, kPoints] */,
    const A* MDPROP_RESTRICT bias /* [kPoints] */, int64_t dim,
    typename Simd<A>::Vector (&sums)[Block<A>::kRows][Block<A>::kVectors]) {
  using S = Simd<A>;
  using B = Block<A>;
  for (int r = 0; r < B::kRows; ++r) {
    for (int v = 0; v < B::kVectors; ++v) sums[r][v] = S::load(bias + v * S::kLanes);
  }
  for (int64_t d = 0; d < dim; ++d, tile += B::kPoints, panel += B::kRows) {
    typename S::Vector points[B::kVectors];
    for (int v = 0; v < B::kVectors; ++v) points[v] = S::load(tile + v * S::kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < B::kRows; ++r) {
      const typename S::Vector query = S::broadcast(panel[r]);
      for (int v = 0; v < B::kVectors; ++v) sums[r][v] = S::multiply_add(query, points[v], sums[r][v]);
    }
  }
}

// One bit a point for each row of the panel: set where the point stays a candidate. Returns whether any is.
template <typename A>
[[gnu::always_inline]] inline bool compare_tile(
    const typename Simd<A>::Vector (&sums)[Block<A>::kRows][Block<A>::kVectors], const A* thresholds,
    uint32_t (&bits)[Block<A>::kRows]) {
  using S = Simd<A>;
  uint32_t any = 0;
#pragma GCC unroll 16
  for (int r = 0; r < Block<A>::kRows; ++r) {
    const typename S::Vector threshold = S::broadcast(thresholds[r]);
    bits[r] = 0;
    for (int v = 0; v < Block<A>::kVectors; ++v) {
      bits[r] |= S::not_greater(sums[r][v], threshold) << (v * S::kLanes);
    }
    any |= bits[r];
  }
  return any != 0;
}

MDPROP_ISA_END
