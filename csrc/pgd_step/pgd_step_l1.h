// The l1 step of one sample on the CPU: reach and room of every value are computed once, into two arrays that stay in
// cache, and summed up for one lambda after the other.
#pragma once

#include "pgd_step/pgd_step_l1_math.h"
#include "pgd_step/pgd_step_tiles.h"

MDPROP_ISA_BEGIN

template <typename Acc>
L1Sums l1_tile_sums(const Acc* MDPROP_RESTRICT reach, const Acc* MDPROP_RESTRICT room, Acc lambda, int64_t count) {
  L1Sums sums;
  sums.total = sum_values(count, [=](int64_t i) { return static_cast<double>(l1_pull(reach[i], room[i], lambda)); });
  int32_t free = 0, full = 0;
  for (int64_t i = 0; i < count; ++i) {
    const Acc above = reach[i] - lambda;
    free += static_cast<int32_t>(above > 0) & static_cast<int32_t>(above < room[i]);
    full += static_cast<int32_t>(above > 0) & static_cast<int32_t>(above >= room[i]);
  }
  sums.free = free;
  sums.full = full;
  return sums;
}

// Reach and room of a tile; returns what its centres, and their roundings, use of the radius.
template <typename Target, typename T, typename Acc>
double l1_prepare_tile(const InputTile<T>& in, Acc step, int64_t count, Acc* MDPROP_RESTRICT reach,
                       Acc* MDPROP_RESTRICT room) {
  const Acc *x = in.x, *grad = in.grad, *origin = in.origin, *lower = in.lower, *upper = in.upper;
  const int64_t bound_stride = in.bound_stride;
  for (int64_t i = 0; i < count; ++i) {
    const L1Coordinate<Acc> at =
        l1_coordinate(x[i] + step * sign(grad[i]), origin[i], lower[i * bound_stride], upper[i * bound_stride]);
    reach[i] = at.reach;
    room[i] = at.room;
  }
  return sum_values(count, [=, &in](int64_t i) {
    const Acc centre = clamp_to(origin[i], lower[i * bound_stride], upper[i * bound_stride]);
    return static_cast<double>(magnitude(origin[i] - centre)) + in.template rest_distance<Target>(i);
  });
}

template <typename Target, typename Acc>
void l1_tile(const Acc* x, const Acc* grad, const Acc* origin, const Acc* lower, const Acc* upper, int64_t bound_stride,
             Acc step, const L1Solution<Acc> solution, int64_t count, typename Target::Out* out) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    out[i] = l1_value<typename Target::Out, Target::kExact>(x[i] + step * sign(grad[i]), origin[i], solution,
                                                            lower[i * bound_stride], upper[i * bound_stride]);
  }
}

template <typename T, typename Target>
void l1_sample(const PgdStepArgs<T>& args, int64_t sample, Target target) {
  using Acc = acc_t<T>;
  using Out = typename Target::Out;
  const SampleOptions<T> options(args, sample);
  const int64_t size = args.sample_size;
  Scratch<Acc> reach(size), room(size);

  const double used = sum_tiles<double>(size, [&](int64_t i, int64_t count) {
    InputTile<T> in;
    in.load(args, sample, i, count);
    return l1_prepare_tile<Target>(in, options.step, count, reach.data() + i, room.data() + i);
  });
  const auto sums_for = [&](Acc lambda) {
    return sum_tiles<L1Sums>(
        size, [&](int64_t i, int64_t count) { return l1_tile_sums(reach.data() + i, room.data() + i, lambda, count); });
  };
  L1Search<Acc> search(options.radius - used, sums_for(0));
  while (search.searching()) search.update(sums_for(search.lambda()));

  parallel_for(size, kTile * kTilesPerTask, [&](int64_t first, int64_t last) {
    InputTile<T> in;
    for_each_tile(first, last, [&](int64_t i, int64_t count) {
      in.load(args, sample, i, count);
      store_tile(args, sample, i, count, target, [&](Out* results) {
        l1_tile<Target>(in.x, in.grad, in.origin, in.lower, in.upper, in.bound_stride, options.step, search.solution(),
                        count, results);
      });
    });
  });
}

MDPROP_ISA_END
