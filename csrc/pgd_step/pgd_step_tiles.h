// The CPU kernel's view of its arguments: tiles in the compute type with the mask applied, typed outputs, and sums over
// a sample in an order fixed by position.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "common/parallel.h"
#include "common/scratch.h"
#include "common/tile.h"
#include "pgd_step/pgd_step.h"
#include "pgd_step/pgd_step_math.h"
#include "pgd_step/pgd_step_target.h"

MDPROP_ISA_BEGIN

constexpr int64_t kTilesPerTask = 8;

// The box of up to kTile neighbouring values, with ends that T can store.
template <typename T>
class BoxTile {
 public:
  const acc_t<T>*lower, *upper;
  int64_t stride;  // of both: 0 or 1

  template <typename Args>
  void load(const Args& args, int64_t sample, int64_t i, [[maybe_unused]] int64_t count) {
    stride = args.lower_bounds != nullptr ? 1 : 0;
    const int64_t at = sample * args.bound_sample_stride + i;
    lower = stride != 0 ? args.lower_bounds + at : &args.lower;
    upper = stride != 0 ? args.upper_bounds + at : &args.upper;
    if constexpr (kCopies) {
      if (stride == 0) return;
      for (int64_t j = 0; j < count; ++j) {
        acc_t<T> low = lower[j], high = upper[j];
        make_storable<T>(low, high);
        lower_copy_[j] = low;
        upper_copy_[j] = high;
      }
      lower = lower_copy_;
      upper = upper_copy_;
    }
  }

 private:
  static constexpr bool kCopies = sizeof(T) < sizeof(acc_t<T>);
  alignas(64) acc_t<T> lower_copy_[kCopies ? kTile : 1], upper_copy_[kCopies ? kTile : 1];
};

// Up to kTile neighbouring values of one sample, starting at value i. Where the mask is 0, a point at rest in the box
// stands for the value: x = origin and no gradient, which adds nothing to any norm.
template <typename T>
class InputTile {
  using Acc = acc_t<T>;

 public:
  const Acc *x, *grad, *origin, *lower, *upper;
  int64_t bound_stride;  // of lower and upper: 0 or 1
  const uint8_t* mask;   // or null

  void load(const PgdStepArgs<T>& args, int64_t sample, int64_t i, int64_t count) {
    const int64_t at = sample * args.sample_size + i;
    box_.load(args, sample, i, count);
    lower = box_.lower;
    upper = box_.upper;
    bound_stride = box_.stride;
    x = x_.load(args.x + at, count);
    grad = grad_.load(args.grad + at, count);
    if (args.origin_bytes == nullptr) {
      origin = origin_.load(args.origin + at, count);
    } else {
      for (int64_t j = 0; j < count; ++j) origin_copy_[j] = byte_value<Acc>(args.origin_bytes[at + j]);
      origin = origin_copy_;
    }
    mask = args.mask == nullptr ? nullptr : args.mask + sample * args.mask_sample_stride + i;
    if (mask != nullptr) apply_mask(count);
  }

  // How far the rounding of value j may take it from its centre, if that is at rest.
  template <typename Target>
  double rest_distance(int64_t j) const {
    if (Target::kExact || (mask != nullptr && mask[j] == 0)) return 0;
    const Acc low = lower[j * bound_stride], high = upper[j * bound_stride];
    return static_cast<double>(rounding_distance<typename Target::Out>(clamp_to(origin[j], low, high), low, high));
  }

 private:
  void apply_mask(int64_t count) {
    for (int64_t j = 0; j < count; ++j) {
      const Acc rest = clamp_to(Acc(0), lower[j * bound_stride], upper[j * bound_stride]);
      x_copy_[j] = mask[j] != 0 ? x[j] : rest;
      grad_copy_[j] = mask[j] != 0 ? grad[j] : Acc(0);
      origin_copy_[j] = mask[j] != 0 ? origin[j] : rest;
    }
    x = x_copy_;
    grad = grad_copy_;
    origin = origin_copy_;
  }

  BoxTile<T> box_;
  Tile<T> x_, grad_, origin_;
  alignas(64) Acc x_copy_[kTile], grad_copy_[kTile], origin_copy_[kTile];
};

// x as it is, in the type of the output.
template <typename T, typename Out>
void copy_values(const T* x, int64_t count, Out* out) {
  if constexpr (std::is_same_v<T, Out>) {
    if (x != out) std::memcpy(out, x, count * sizeof(T));
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = narrow<Out>(widen(x[i]));
  }
}

// Lets write(results) give `count` values of one sample, and stores them where the mask is not 0, else x.
template <typename T, typename Target, typename Write>
void store_tile(const PgdStepArgs<T>& args, int64_t sample, int64_t i, int64_t count, Target target,
                const Write& write) {
  const int64_t at = sample * args.sample_size + i;
  if (args.mask == nullptr) return write(target.out + at);
  typename Target::Out results[kTile];
  write(results);
  const uint8_t* mask = args.mask + sample * args.mask_sample_stride + i;
  copy_values(args.x + at, count, target.out + at);
  for (int64_t j = 0; j < count; ++j) target.out[at + j] = mask[j] != 0 ? results[j] : target.out[at + j];
}

// Sum over a sample of term(offset, count), tile by tile.
template <typename Sum, typename Term>
Sum sum_tiles(int64_t size, const Term& term) {
  const int64_t tiles = (size + kTile - 1) / kTile;
  Scratch<Sum> sums(tiles);
  parallel_for(tiles, kTilesPerTask, [&](int64_t first, int64_t last) {
    for (int64_t tile = first; tile < last; ++tile) {
      sums[tile] = term(tile * kTile, std::min(kTile, size - tile * kTile));
    }
  });
  Sum total{};
  for (int64_t tile = 0; tile < tiles; ++tile) total += sums[tile];
  return total;
}

constexpr int kLanes = 32;  // independent partial sums: fixed, so that every instruction set adds in the same order

template <typename Sum>
Sum add_lanes(Sum (&lanes)[kLanes]) {
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

// Sum of value(i), in fp64, over a tile.
template <typename Value>
double sum_values(int64_t count, const Value& value) {
  alignas(64) double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += value(i + lane);
  }
  for (; i < count; ++i) lanes[0] += value(i);
  return add_lanes(lanes);
}

MDPROP_ISA_END
