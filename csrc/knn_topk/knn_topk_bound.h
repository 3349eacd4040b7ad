// The rounding bound of the CPU's filter, in fp32 and, for fp64, in fp64.
#pragma once

#include <cmath>
#include <cstdint>

#include "knn_topk/knn_topk_math.h"

MDPROP_ISA_BEGIN

// The filter. Every metric becomes a score that increases with the distance of a fixed query, an affine function of one
// inner product, which is computed in acc_t<T> with unit roundoff u:
//   euclidean  s = |X|^2 / 2 - <P, X>, with X = x - c, P = q - c for a centre c near the points: d^2 = |P|^2 + 2 s
//   cosine     s = -<q/|q|, x/|x|>:                                                             d = 1 + s
//   dot        s = -<q/|q|, x>:                                                                 d = |q| s
// The kernel computes a = bias(x) - sum p_i x_i, where bias(x) = [|X|^2 / 2] - reach(x), reach(x) = g m(x) + eta, and
// m(x) is |X|^2, 1 and |x| respectively.
//
// Claim: with g = (2 D + 64) u and eta = (4 D + 16) times the smallest normal number, if
//   a(x) > a(y) + 2 reach(y) + allowance(q),  allowance = 2 (g |P|^2 + eta), 2 eta, 2 eta (1 + 1 / |q|) respectively,
// then the rounded distance of y is strictly smaller than that of x. So k such y exclude x, whatever its index.
//
// Why. The chain of D multiply-adds, fused or not, errs by at most (D + 1) u (|bias| + sum |p_i x_i|) to first order; u
// covers fp64's own roundoff too.
//
// Euclidean: centring is correct to 2u and |X|^2 to (D / 8 + 8) u. As |P| |X| <= (|P|^2 + |X|^2) / 2, this gives
// |a - (s - reach)| <= (1.5 D + 8) u |X|^2 + (0.5 D + 3) u |P|^2. The fp64 formula errs in s by (D / 8 + 8) u d^2 at
// most, and distances round to distinct numbers once squares differ by 4u d^2, scores by 2u d^2, where
// d^2 <= 2 |P|^2 + 2 |X|^2: together (D / 4 + 20) u (|P|^2 + |X|^2). Comparing adds 3u |s|. The sum,
// (1.75 D + 34) u |X|^2 + (0.75 D + 26) u |P|^2, is below g (|X|^2 + |P|^2), and the terms in u^2 fit between the two
// while D u <= 2^-6 (kMaxFilterDim).
//
// Cosine and dot: queries are units. Normalising errs by (D / 16 + 8) u a side, the chain by (D + 2) u m, the fp64
// formula by (D / 4 + 14) u m, distinct rounding needs 4u m: below g m again. Clipping to [0, 2], where the real
// cosine distance lies, cannot increase an error.
//
// eta covers underflow, also where subnormals are flushed; 1 / |q| scales it back for the dot. Overflow cannot occur:
// rows whose squared norm is outside [kSmallestSquare, kLargestSquare], save exact zeros, are never excluded (NaN bias;
// infinite allowance), and neither is any row with a NaN or an infinity.
template <typename A>
struct FilterBound {
  static constexpr bool kDouble = sizeof(A) == 8;
  static constexpr double kUnit = kDouble ? 0x1p-53 : 0x1p-24;
  static constexpr double kSmallestNormal = kDouble ? 0x1p-1022 : 0x1p-126;
  static constexpr double kSmallestSquare = kDouble ? 0x1p-900 : 0x1p-200;
  static constexpr double kLargestSquare = kDouble ? 0x1p900 : 0x1p100;
  static constexpr int64_t kMaxFilterDim = int64_t{1} << 18;

  FilterBound(KnnMetric metric, int64_t dim)
      : metric(metric),
        usable_dim(dim <= kMaxFilterDim),
        relative((2.0 * dim + 64) * kUnit),
        absolute((4.0 * dim + 16) * kSmallestNormal) {}

  bool usable(double square) const {
    return usable_dim && (square == 0 || (square >= kSmallestSquare && square <= kLargestSquare));
  }
  bool euclidean() const { return is_euclidean(metric); }
  double reach(double square) const {
    const double size = euclidean() ? square : metric == KnnMetric::kCosine ? 1.0 : std::sqrt(square);
    return relative * size + absolute;
  }
  double bias(double square) const { return (euclidean() ? square / 2 : 0.0) - reach(square); }
  double allowance(double square) const {
    if (euclidean()) return 2 * (relative * square + absolute);
    if (metric == KnnMetric::kCosine || square == 0) return 2 * absolute;
    return 2 * absolute * (1 + 1 / std::sqrt(square));
  }

  KnnMetric metric;
  bool usable_dim;
  double relative;
  double absolute;
};

MDPROP_ISA_END
