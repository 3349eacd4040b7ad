// pgd_step on the CPU: one fused pass for linf; for l2 three passes over one sample at a time, which stays in cache.
//
#include "pgd_step/pgd_step.h"

#include <algorithm>
#include <cmath>

#include "common/parallel.h"
#include "common/scratch.h"
#include "common/tile.h"
#include "pgd_step/pgd_step_math.h"

namespace mdprop::MDPROP_ISA {
namespace {

constexpr int64_t kTilesPerTask = 8;

template <typename T, int kBoundStride>
void linf_tile(const acc_t<T>* MDPROP_RESTRICT x, const acc_t<T>* MDPROP_RESTRICT grad,
               const acc_t<T>* MDPROP_RESTRICT origin, const acc_t<T>* MDPROP_RESTRICT lower,
               const acc_t<T>* MDPROP_RESTRICT upper, acc_t<T> step, acc_t<T> radius, int64_t count,
               T* MDPROP_RESTRICT out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = linf_value<T>(x[i], grad[i], origin[i], step, radius, lower[i * kBoundStride], upper[i * kBoundStride]);
  }
}

template <typename T>
void linf_step(const PgdStepArgs<T>& args) {
  using Acc = acc_t<T>;
  const int64_t tasks_per_sample = (args.sample_size + kTile * kTilesPerTask - 1) / (kTile * kTilesPerTask);
  parallel_for(args.samples * tasks_per_sample, 2, [&](int64_t first, int64_t last) {
    Tile<T> x, grad, origin;
    for (int64_t task = first; task < last; ++task) {
      const int64_t sample = task / tasks_per_sample;
      const int64_t begin = task % tasks_per_sample * kTile * kTilesPerTask;
      const Acc step = static_cast<Acc>(args.step[sample * args.step_stride]);
      const Acc radius = round_down<Acc>(args.radius[sample * args.radius_stride]);
      for_each_tile(begin, std::min(begin + kTile * kTilesPerTask, args.sample_size), [&](int64_t i, int64_t count) {
        const int64_t at = sample * args.sample_size + i;
        const auto tile = args.bound_stride == 0 ? linf_tile<T, 0> : linf_tile<T, 1>;
        tile(x.load(args.x + at, count), grad.load(args.grad + at, count), origin.load(args.origin + at, count),
             args.lower + at * args.bound_stride, args.upper + at * args.bound_stride, step, radius, count,
             args.out + at);
      });
    }
  });
}

// Sum over a sample of term(tile index, offset, count), in an order fixed by position.
template <typename Term>
double sum_tiles(int64_t size, const Term& term) {
  const int64_t tiles = (size + kTile - 1) / kTile;
  Scratch<double> sums(tiles);
  parallel_for(tiles, kTilesPerTask, [&](int64_t first, int64_t last) {
    for (int64_t tile = first; tile < last; ++tile) {
      sums[tile] = term(tile * kTile, std::min(kTile, size - tile * kTile));
    }
  });
  double total = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) total += sums[tile];
  return total;
}

constexpr int kLanes = 32;  // independent partial sums: fixed, so that every instruction set adds in the same order

template <typename Value>
double sum_of_squares(int64_t count, const Value& value) {
  alignas(64) double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double v = value(i + lane);
      lanes[lane] += v * v;
    }
  }
  for (; i < count; ++i) {
    const double v = value(i);
    lanes[0] += v * v;
  }
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

template <typename T>
void l2_sample(const PgdStepArgs<T>& args, int64_t sample) {
  using Acc = acc_t<T>;
  const int64_t size = args.sample_size, start = sample * size;
  const Acc step = static_cast<Acc>(args.step[sample * args.step_stride]);
  const Acc radius = round_down<Acc>(args.radius[sample * args.radius_stride]);

  const double grad_norm = std::sqrt(sum_tiles(size, [&](int64_t i, int64_t count) {
    Tile<T> tile;
    const Acc* grad = tile.load(args.grad + start + i, count);
    return sum_of_squares(count, [=](int64_t j) { return static_cast<double>(grad[j]); });
  }));
  // A zero or NaN gradient moves nothing.
  const Acc scale = grad_norm > 0 && std::isfinite(grad_norm) ? static_cast<Acc>(step / grad_norm) : Acc(0);
  const auto moved = [=](Acc x, Acc grad) { return scale == 0 ? x : x + scale * grad; };

  const double delta_norm = std::sqrt(sum_tiles(size, [&](int64_t i, int64_t count) {
    Tile<T> x_tile, grad_tile, origin_tile;
    const Acc* x = x_tile.load(args.x + start + i, count);
    const Acc* grad = grad_tile.load(args.grad + start + i, count);
    const Acc* origin = origin_tile.load(args.origin + start + i, count);
    return sum_of_squares(count, [=](int64_t j) { return static_cast<double>(moved(x[j], grad[j]) - origin[j]); });
  }));
  const Acc shrink = l2_shrink<Acc>(delta_norm, radius);

  parallel_for(size, kTile * kTilesPerTask, [&](int64_t first, int64_t last) {
    Tile<T> x_tile, grad_tile, origin_tile;
    for_each_tile(first, last, [&](int64_t i, int64_t count) {
      const Acc* x = x_tile.load(args.x + start + i, count);
      const Acc* grad = grad_tile.load(args.grad + start + i, count);
      const Acc* origin = origin_tile.load(args.origin + start + i, count);
      const Acc* lower = args.lower + (start + i) * args.bound_stride;
      const Acc* upper = args.upper + (start + i) * args.bound_stride;
      T* MDPROP_RESTRICT out = args.out + start + i;
      for (int64_t j = 0; j < count; ++j) {
        out[j] = l2_value<T>(moved(x[j], grad[j]), origin[j], shrink, lower[j * args.bound_stride],
                             upper[j * args.bound_stride]);
      }
    });
  });
}

}  // namespace

template <typename T>
void pgd_step(const PgdStepArgs<T>& args) {
  if (args.norm == PgdNorm::kLinf) return linf_step(args);
  // Samples in parallel; within a sample the passes are parallel only where there is a single sample.
  parallel_for(args.samples, 1, [&](int64_t first, int64_t last) {
    for (int64_t sample = first; sample < last; ++sample) l2_sample(args, sample);
  });
}

template void pgd_step<float>(const PgdStepArgs<float>&);
template void pgd_step<double>(const PgdStepArgs<double>&);
template void pgd_step<BFloat16>(const PgdStepArgs<BFloat16>&);
template void pgd_step<Half>(const PgdStepArgs<Half>&);

}  // namespace mdprop::MDPROP_ISA
