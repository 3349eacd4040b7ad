// The l1 step of one sample on the CPU: reach and room of every value are computed once, into two arrays that stay in
// cache, and summed up for one lambda after the other.
#pragma once

#include "pgd_step/pgd_step_l1_math.h"
#include "pgd_step/pgd_step_tiles.h"

MDPROP_ISA_BEGIN

template <typename Acc>
L1Sums l1_tile_sums(const Acc* MDPROP_RESTRICT reach, const Acc* MDPROP_RESTRICT room, Acc lambda, int64_t count) {
  alignas(64) double totals[kLanes] = {};
  alignas(64) int32_t free[kLanes] = {}, full[kLanes] = {};
  const auto add = [&](int64_t i, int lane) {
    const Acc above = reach[i] - lambda;
    totals[lane] += l1_pull(reach[i], room[i], lambda);
    free[lane] += static_cast<int32_t>(above > 0) & static_cast<int32_t>(above < room[i]);
    full[lane] += static_cast<int32_t>(above > 0) & static_cast<int32_t>(above >= room[i]);
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) add(i + lane, lane);
  }
  for (; i < count; ++i) add(i, 0);
  return {add_lanes(totals), add_lanes(free), add_lanes(full)};
}

template <typename T, typename Out>
void l1_sample(const PgdStepArgs<T>& args, int64_t sample, Out* out) {
  using Acc = acc_t<T>;
  const SampleOptions<T> options(args, sample);
  const int64_t size = args.sample_size, bound_stride = args.bound_stride;
  const bool rounds = may_round_away<T, Out>(args);
  Scratch<Acc> reach(size), room(size);

  // What the centres, and their roundings, use of the radius.
  const double used = sum_tiles<double>(size, [&](int64_t i, int64_t count) {
    InputTile<T> in;
    in.load(args, sample, i, count);
    for (int64_t j = 0; j < count; ++j) {
      const L1Coordinate<Acc> at = l1_coordinate(in.x[j] + options.step * sign(in.grad[j]), in.origin[j],
                                                 in.lower[j * bound_stride], in.upper[j * bound_stride]);
      reach[i + j] = at.reach;
      room[i + j] = at.room;
    }
    return sum_values(count, [&](int64_t j) {
      const Acc low = in.lower[j * bound_stride], high = in.upper[j * bound_stride];
      const Acc centre = clamp_to(in.origin[j], low, high), moved = in.origin[j] - centre;
      return static_cast<double>(moved < 0 ? -moved : moved) + (rounds ? rounding_distance<Out>(centre, low, high) : 0);
    });
  });
  const auto sums_for = [&](Acc lambda) {
    return sum_tiles<L1Sums>(size, [&](int64_t i, int64_t count) {
      return l1_tile_sums(reach.data() + i, room.data() + i, lambda, count);
    });
  };
  L1Search<Acc> search(options.radius - used, sums_for(0));
  while (search.searching()) search.update(sums_for(search.lambda()));

  parallel_for(size, kTile * kTilesPerTask, [&](int64_t first, int64_t last) {
    InputTile<T> in;
    for_each_tile(first, last, [&](int64_t i, int64_t count) {
      in.load(args, sample, i, count);
      store_tile(args, sample, i, count, out, [&](Out* results) {
#pragma GCC ivdep
        for (int64_t j = 0; j < count; ++j) {
          results[j] = l1_value<Out>(in.x[j] + options.step * sign(in.grad[j]), in.origin[j], search.solution(),
                                     in.lower[j * bound_stride], in.upper[j * bound_stride]);
        }
      });
    });
  });
}

MDPROP_ISA_END
