// What the other kernels read of each row: its group, its norm, and its bf16 form with the bounds of the filter.
//
// The filter. As on the CPU (knn_topk_bound.h) every metric becomes a score that increases with the distance,
//   euclidean  s = |X|^2 / 2 - <P, X>, X = x - c, P = q - c;  cosine, dot  s = -<P, X>, P = q / |q|, X = x / |x| or x,
// here of rows rounded to bf16, P' and X'. The kernel computes
//   a = bias(x) - error(q) norm(x) - norm(q) error(x) - sum P'_i X'_i
// and a <= s holds in real numbers, so that a list may drop what lies above k others whatever its index. Why:
//
// <P, X> - <P', X'> = <P - P', X> + <P', X - X'>, so its size is at most |P - P'| |X| + |P'| |X - X'|: hence norm(q) >=
// |P'|, norm(x) >= |X|, and errors at least those of bf16, which are measured, row by row.
//
// Let u = 2^-22 and g = (2 D + 96) u. A product of two bf16 is exact in fp32. Tensor cores align the 16 products of a
// step and the running sum to the largest of them and may cut off what lies 23 bits lower, so that each of these 17,
// and the normalised result, loses at most u B, where B = |first value| + sum |P'_i X'_i| bounds every partial sum. D /
// 16 + 1 steps lose (1.13 D + 18) u B. As errors are below 2^-7 of norms, B <= |X|^2 / 2 + 1.04 norm(q) norm(x). Sums
// of squares in fp32, D / 32 additions a lane and five over lanes, are right to (D / 32 + 8) u / 4; centring and
// normalising to (D / 32 + 12) u / 4 a value; the two multiply-adds of the first value and its roundings to 4 u B / 4.
// Altogether less than (1.3 D + 40) u (|X|^2 / 2 + norm(q) norm(x)) < g (...): bias(x) is (1 - g) |X|^2 / 2, and
// error(q) holds g norm(q). What is left of g covers the fp64 formula of the dot, (D / 8 + 8) 2^-53 |q| |x|.
//
// Underflow: products below 2^-126 may count as 0, which bias(x) - (D + 96) 2^-125 covers; squares below 2^-149 may be
// lost, so norms are raised by 2^-66 >= sqrt(D) 2^-74. Overflow cannot occur: a point whose squared norm is not below
// 2^100 has bias -inf and stays a candidate of every query, and such a query is measured directly. Rows that are scaled
// to unit length need a squared norm above 2^-100, or only zeros.
#pragma once

#include "common/device.cuh"
#include "common/vector.cuh"
#include "knn_topk/knn_topk_cuda_plan.h"
#include "knn_topk/knn_topk_exact.cuh"
#include "knn_topk/knn_topk_groups.cuh"

namespace mdprop {
namespace {

constexpr int kRowWarps = 8;  // rows that a block packs, one a warp
constexpr float kLargestSquare = 0x1p100f, kSmallestSquare = 0x1p-100f, kLostNorm = 0x1p-66f;
constexpr int kCentreSample = 64;

template <typename T>
struct RowSource {
  const T* rows;        // [count, dim]
  const float* centre;  // [dim], or null
  int64_t dim, padded_dim;
  bool unit;  // scale rows to length 1
};

struct PackedRow {
  float square;                    // |X|^2 before scaling
  float norm, packed_norm, error;  // |X|, |X'| and |X - X'| of the form that was packed, rounded up
  bool usable;
  bool has_nan;
};

// Values 4 i up to 4 i + 4 of a row in fp32, less the centre; zeros beyond its end.
template <typename T>
__device__ __forceinline__ Vector<float, 4> load_values(const RowSource<T>& source, int64_t row, int64_t first) {
  const T* from = source.rows + row * source.dim + first;
  Vector<float, 4> values = {};
  if (first + 4 <= source.dim && is_aligned(from, 4 * sizeof(T))) {
    const Vector<T, 4> loaded = load_vector<4>(from);
    for (int i = 0; i < 4; ++i) values[i] = widen(loaded[i]);
  } else {
    for (int i = 0; i < 4; ++i) values[i] = first + i < source.dim ? widen(from[i]) : 0.0f;
  }
  if (source.centre != nullptr) {
    for (int i = 0; i < 4; ++i) values[i] -= first + i < source.dim ? source.centre[first + i] : 0.0f;
  }
  return values;
}

// Packs sign times a row, by one warp; zeros where it is not usable.
template <typename T>
__device__ PackedRow pack_row(const RowSource<T>& source, int64_t row, float sign, BFloat16* out /* [padded_dim] */) {
  float square = 0;
  bool only_zeros = true, has_nan = false;
  for (int64_t first = 4 * lane_id(); first < source.dim; first += 4 * kWarpSize) {
    const Vector<float, 4> values = load_values(source, row, first);
    for (int i = 0; i < 4; ++i) {
      square += values[i] * values[i];
      only_zeros &= values[i] == 0;
      has_nan |= values[i] != values[i];
    }
  }
  square = warp_sum(square);
  const bool zero = __all_sync(kAllLanes, only_zeros);
  PackedRow packed = {};
  packed.square = square;
  packed.usable = square <= kLargestSquare && (!source.unit || zero || square >= kSmallestSquare);
  packed.has_nan = __any_sync(kAllLanes, has_nan);
  const float scale = !packed.usable ? 0.0f : source.unit && !zero ? 1 / sqrtf(square) : 1.0f;
  float norm = 0, packed_norm = 0, error = 0;
  for (int64_t first = 4 * lane_id(); first < source.padded_dim; first += 4 * kWarpSize) {
    const Vector<float, 4> values = load_values(source, row, first);
    Vector<BFloat16, 4> rounded;
    for (int i = 0; i < 4; ++i) {
      const float value = packed.usable ? values[i] * scale : 0.0f;  // a NaN times zero would stay
      rounded[i] = narrow<BFloat16>(sign * value);
      const float near = sign * widen(rounded[i]), lost = value - near;
      norm += value * value;
      packed_norm += near * near;
      error += lost * lost;
    }
    store_vector(out + first, rounded);
  }
  const float up = 1 + static_cast<float>(source.dim + 64) * 0x1p-23f;
  packed.norm = sqrtf(warp_sum(norm)) * up + kLostNorm;
  packed.packed_norm = sqrtf(warp_sum(packed_norm)) * up + kLostNorm;
  // The values themselves are right to some units in the last place: of centring, or of scaling.
  packed.error = sqrtf(warp_sum(error)) * up + kLostNorm + (up - 1) * packed.norm;
  return packed;
}

// The mean of a sample of the points: any centre is right, one near the points makes the bounds small. 32 features a
// block, each warp a part of the sample.
template <typename T>
__global__ void __launch_bounds__(kRowWarps* kWarpSize)
    knn_centre_kernel(const T* points, int64_t num_points, int64_t dim, float* centre) {
  struct Partials {
    float sums[kRowWarps][kWarpSize];
  };
  auto& partials = shared_storage<Partials>();
  const int64_t d = int64_t{blockIdx.x} * kWarpSize + lane_id();
  const int sample = num_points < kCentreSample ? static_cast<int>(num_points) : kCentreSample;
  float sum = 0;
  for (int i = warp_id(); i < sample; i += kRowWarps) {
    if (d < dim) sum += widen(points[num_points * i / sample * dim + d]);
  }
  partials.sums[warp_id()][lane_id()] = sum;
  __syncthreads();
  if (warp_id() > 0 || d >= dim) return;
  for (int i = 1; i < kRowWarps; ++i) sum += partials.sums[i][lane_id()];
  const float mean = sum / sample;
  centre[d] = fabsf(mean) <= kLargestSquare ? mean : 0.0f;
}

template <typename T>
struct RowsArgs {
  RowSource<T> source;  // queries; unpacked where values is null
  int64_t first_row, num_rows, padded_rows;
  KnnMetric metric;
  const int64_t* query_offsets;
  const int64_t* point_offsets;
  int64_t num_groups, num_points;
  int splits;
  int32_t* begins;    // [padded_rows]
  int32_t* ends;      // [padded_rows]
  double* squares;    // [padded_rows]
  int* counts;        // [padded_rows, splits]
  float* thresholds;  // [padded_rows, splits], or null
  float* bounds;      // [2, padded_rows] norm and error
  BFloat16* values;   // [padded_rows, padded_dim], negated
};

// One warp a query of the chunk. Rows beyond the last see no points.
template <typename T>
__global__ void __launch_bounds__(kRowWarps* kWarpSize) knn_rows_kernel(const __grid_constant__ RowsArgs<T> args) {
  const int64_t row = int64_t{blockIdx.x} * kRowWarps + warp_id();
  if (row >= args.padded_rows) return;
  const bool real = row < args.num_rows;
  const int64_t query = args.first_row + (real ? row : 0);
  int64_t begin = 0, end = real ? args.num_points : 0;
  if (real && args.query_offsets != nullptr) {
    const int64_t group = group_of_row(args.query_offsets, args.num_groups, query);
    begin = args.point_offsets[group];
    end = args.point_offsets[group + 1];
  }
  const double square = measure_square(args.source.rows + query * args.source.dim, args.source.centre, args.source.dim);
  float threshold = kInfinity;
  if constexpr (sizeof(T) < sizeof(double)) {
    if (args.values != nullptr) {
      const PackedRow packed = pack_row(args.source, query, -1.0f, args.values + row * args.source.padded_dim);
      const bool usable = real && packed.usable;
      if (!usable) threshold = -threshold;
      const float error = packed.error + static_cast<float>(2 * args.source.dim + 96) * 0x1p-22f * packed.packed_norm;
      if (lane_id() == 0) {
        args.bounds[row] = usable ? packed.packed_norm : 0.0f;
        args.bounds[args.padded_rows + row] = usable ? error : 0.0f;
      }
    }
  }
  for (int split = lane_id(); split < args.splits; split += kWarpSize) {
    args.counts[row * args.splits + split] = 0;
    if (args.thresholds != nullptr) args.thresholds[row * args.splits + split] = threshold;
  }
  if (lane_id() > 0) return;
  args.begins[row] = static_cast<int32_t>(begin);
  args.ends[row] = static_cast<int32_t>(end);
  args.squares[row] = square;
}

template <typename T>
struct PointsArgs {
  RowSource<T> source;
  int64_t first_point, num_points, padded_points;  // those of the chunk; whole tiles
  bool euclidean;
  float* bounds;     // [3, padded_points] bias, norm and error
  BFloat16* values;  // [padded_points, padded_dim]
};

// One warp a point of the chunk. Points beyond the last can be no candidates.
template <typename T>
__global__ void __launch_bounds__(kRowWarps* kWarpSize) knn_points_kernel(const __grid_constant__ PointsArgs<T> args) {
  const int64_t place = int64_t{blockIdx.x} * kRowWarps + warp_id();
  if (place >= args.padded_points) return;
  const bool real = place < args.num_points;
  const int64_t point = args.first_point + (real ? place : 0);
  const PackedRow packed = pack_row(args.source, point, 1.0f, args.values + place * args.source.padded_dim);
  if (lane_id() > 0) return;
  const float relative = static_cast<float>(2 * args.source.dim + 96) * 0x1p-22f;
  const float lost = static_cast<float>(args.source.dim + 96) * 0x1p-125f;
  const float half = args.euclidean ? packed.square / 2 * (1 - relative) : 0.0f;
  // Those with a NaN are farther than any other, or the certificate fails.
  args.bounds[place] = !real || packed.has_nan ? kInfinity : packed.usable ? half - lost : -kInfinity;
  args.bounds[args.padded_points + place] = packed.usable ? packed.norm : 0.0f;
  args.bounds[2 * args.padded_points + place] = packed.usable ? packed.error : 0.0f;
}

}  // namespace
}  // namespace mdprop
