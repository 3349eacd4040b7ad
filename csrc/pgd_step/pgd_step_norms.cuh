// The step of one sample for each norm.
#pragma once

#include <cstdint>
#include <type_traits>

#include "pgd_step/pgd_step_l1_math.h"
#include "pgd_step/pgd_step_math.h"
#include "pgd_step/pgd_step_sample.cuh"

MDPROP_ISA_BEGIN

// Squares of fp64 values are summed up in three units at once, since only their sum tells which one stays in range.
template <typename Acc>
constexpr int kSquareFields = sizeof(Acc) == 4 ? 1 : 3;

template <int kFields, typename Acc>
__device__ void add_square(Acc value, Sums<kFields>& sums) {
  const double wide = value;
  sums.values[0] = wide * wide;
  if constexpr (kSquareFields<Acc> == 3) {
    sums.values[1] = wide * 0x1p-600 * (wide * 0x1p-600);
    sums.values[2] = wide * 0x1p600 * (wide * 0x1p600);
  }
}

template <typename Acc, int kFields>
__device__ ScaledNorm norm_of_squares(const Sums<kFields>& sums) {
  if constexpr (kSquareFields<Acc> == 1) {
    return scaled_norm(sqrt(sums[0]));
  } else {
    const double unit = retry_unit(sums[0]);
    return {sqrt(unit == 1.0 ? sums[0] : unit < 1.0 ? sums[1] : sums[2]), unit};
  }
}

// How far a value's rounding may take it from a centre in the box at rest.
template <typename Target, typename Acc>
__device__ double rest_distance(const PgdValue<Acc>& value) {
  if constexpr (Target::kExact) {
    return 0;
  } else {
    const Acc centre = clamp_to(value.origin, value.lower, value.upper);
    return value.shown ? rounding_distance<typename Target::Out>(centre, value.lower, value.upper) : 0;
  }
}

template <typename T, typename Target>
__device__ void l2_step(const PgdStepArgs<T>& args, Target target, Sample<T>& sample) {
  using Acc = acc_t<T>;
  constexpr int kSquares = kSquareFields<Acc>;
  const SampleOptions<T> options(args, sample.number());
  const auto grad_sums = sample.template sum<kSquares>([](const PgdValue<Acc>& value) {
    Sums<kSquares> sums;
    add_square(value.grad, sums);
    return sums;
  });
  const Direction<Acc> direction(norm_of_squares<Acc>(grad_sums), options.step);
  const auto delta_sums = sample.template sum<kSquares + 1>([=](const PgdValue<Acc>& value) {
    Sums<kSquares + 1> sums;
    add_square(l2_distance(direction.moved(value.x, value.grad), value.origin), sums);
    const double rest = rest_distance<Target>(value);
    sums.values[kSquares] = rest * rest;
    return sums;
  });
  const double radius = l2_radius(options.radius, sqrt(delta_sums[kSquares]));
  const L2Pull<Acc> pull(norm_of_squares<Acc>(delta_sums), Target::kExact ? options.radius : radius);
  sample.write(target, [=](const PgdValue<Acc>& value) {
    return l2_value<typename Target::Out, Target::kExact>(direction.moved(value.x, value.grad), value.origin, pull,
                                                          value.lower, value.upper);
  });
}

template <typename Acc>
__device__ L1Coordinate<Acc> l1_coordinate(const PgdValue<Acc>& value, Acc step) {
  return l1_coordinate(value.x + step * sign(value.grad), value.origin, value.lower, value.upper);
}

// Total, free and full of L1Sums.
template <typename Acc>
__device__ Sums<3> l1_sums(Acc reach, Acc room, Acc lambda) {
  const Acc above = reach - lambda;
  return {{static_cast<double>(l1_pull(reach, room, lambda)), above > 0 && above < room ? 1.0 : 0.0,
           above > 0 && above >= room ? 1.0 : 0.0}};
}

__device__ __forceinline__ L1Sums to_l1_sums(const Sums<3>& sums) {
  L1Sums result;
  result.total = sums[0];
  result.free = static_cast<int64_t>(sums[1]);
  result.full = static_cast<int64_t>(sums[2]);
  return result;
}

// A first lambda for a sample that does not stay in shared memory, so that a pass is expensive: that of some thousand
// of its values, for their share of the radius. Each block of a team finds the same one. It takes the place of a
// histogram of all values: the guess is as good, and needs no shared counters.
template <typename T>
__device__ acc_t<T> l1_guess(const PgdStepArgs<T>& args, const SamplePlan& plan, Team& team, const Sample<T>& sample,
                             const SampleOptions<T>& options) {
  using Acc = acc_t<T>;
  constexpr int kRuns = kGuessBytes / (kTeamThreads * kRun<T> * 2 * static_cast<int>(sizeof(Acc)));
  constexpr int kChunkBytes = kSlotBytes<T> * kTeamThreads;
  Acc* const reach = reinterpret_cast<Acc*>(dynamic_shared() + plan.cached_chunks * kChunkBytes);
  Acc* const room = reach + kRuns * kRun<T> * kTeamThreads;
  const auto slot = [](int value) { return value * kTeamThreads + static_cast<int>(threadIdx.x); };
  sample.for_each_spread_run(kRuns, [&](int r, const InputRun<T>& run) {
    for (int k = 0; k < kRun<T>; ++k) {
      const L1Coordinate<Acc> at = l1_coordinate(run.value(k), options.step);
      reach[slot(r * kRun<T> + k)] = at.reach;
      room[slot(r * kRun<T> + k)] = at.room;
    }
  });
  const auto sums_for = [&](Acc lambda) {
    Sums<3> own = {};
    for (int i = 0; i < kRuns * kRun<T>; ++i) own += l1_sums(reach[slot(i)], room[slot(i)], lambda);
    return to_l1_sums(team.block_sum()(own));
  };
  const double share = static_cast<double>(kRuns * kRun<T> * kTeamThreads) / static_cast<double>(args.sample_size);
  L1Search<Acc> search(static_cast<double>(options.radius) * share, sums_for(Acc(0)));
  while (search.searching()) search.update(sums_for(search.lambda()));
  const Acc guess = search.solution().high;
  return guess < Acc(INFINITY) ? guess : Acc(0);
}

template <typename T, typename Target>
__device__ void l1_step(const PgdStepArgs<T>& args, Target target, const SamplePlan& plan, Team& team,
                        Sample<T>& sample) {
  using Acc = acc_t<T>;
  const SampleOptions<T> options(args, sample.number());
  Acc guess = 0;
  if (plan.guesses) {
    if (!sample.inactive()) guess = l1_guess(args, plan, team, sample, options);
    if (args.velocity != nullptr) team.barrier();  // the guess has read velocities that the next pass replaces
  }

  // What the centres and their roundings use of the radius, the total for 0, and the sums for the guess.
  const auto first = sample.template sum<5>([=](const PgdValue<Acc>& value) {
    const L1Coordinate<Acc> at = l1_coordinate(value, options.step);
    const Sums<3> sums = l1_sums(at.reach, at.room, guess);
    return Sums<5>{{static_cast<double>(magnitude(value.origin - at.centre)) + rest_distance<Target>(value),
                    static_cast<double>(l1_pull(at.reach, at.room, Acc(0))), sums[0], sums[1], sums[2]}};
  });
  const L1Sums at_guess = to_l1_sums({{first[2], first[3], first[4]}});
  L1Search<Acc> search(options.radius - first[0], first[1], guess, at_guess);
  while (team.begin_round(search.searching())) {
    const Acc lambda = search.lambda();
    const auto sums = sample.template sum<3>(
        [=](const PgdValue<Acc>& value) {
          const L1Coordinate<Acc> at = l1_coordinate(value, options.step);
          return l1_sums(at.reach, at.room, lambda);
        },
        !search.searching());
    if (!team.end_round()) break;
    if (search.searching()) search.update(to_l1_sums(sums));
  }
  const L1Solution<Acc> solution = search.solution();
  sample.write(target, [=](const PgdValue<Acc>& value) {
    return l1_value<typename Target::Out, Target::kExact>(value.x + options.step * sign(value.grad), value.origin,
                                                          solution, value.lower, value.upper);
  });
}

// Blocks of a sample that is not active take part in the barriers of the grid all the same.
template <PgdNorm kNorm, typename T, typename Target>
__device__ void step_sample(const PgdStepArgs<T>& args, Target target, const SamplePlan& plan, Team& team,
                            Sample<T>& sample) {
  using Acc = acc_t<T>;
  if (sample.inactive()) {
    sample.write_x(target);
    if (team.alone()) return;
  }
  if (args.velocity != nullptr) {
    const auto sums = sample.template sum<2>([](const PgdValue<Acc>& value) {
      const double wide = value.grad;
      return Sums<2>{{wide < 0 ? -wide : wide, value.shown ? 1.0 : 0.0}};
    });
    sample.set_momentum(Direction<Acc>(scaled_norm(sums[0] / sums[1]), 1.0));
  }
  if constexpr (kNorm == PgdNorm::kL2) {
    l2_step(args, target, sample);
  } else if constexpr (kNorm == PgdNorm::kL1) {
    l1_step(args, target, plan, team, sample);
  } else {
    const SampleOptions<T> options(args, sample.number());
    sample.write(target, [=](const PgdValue<Acc>& value) {
      return linf_value<typename Target::Out, Target::kExact>(value.x, value.grad, value.origin, options.step,
                                                              options.radius, value.lower, value.upper);
    });
  }
}

MDPROP_ISA_END
