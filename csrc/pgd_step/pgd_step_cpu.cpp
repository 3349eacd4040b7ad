// pgd_step on the CPU: one fused pass for linf; for l2 three passes over one sample at a time, which stays in cache;
// for l1 as many as its search takes. Momentum is updated first, sample by sample.
#include "pgd_step/pgd_step.h"

#include <algorithm>
#include <cmath>

#include "common/parallel.h"
#include "common/tile.h"
#include "pgd_step/pgd_step_l1.h"
#include "pgd_step/pgd_step_math.h"
#include "pgd_step/pgd_step_tiles.h"

namespace mdprop::MDPROP_ISA {
namespace {

template <typename Target, int kBoundStride, typename Acc>
void linf_tile(const Acc* x, const Acc* grad, const Acc* origin, const Acc* lower, const Acc* upper, Acc step,
               Acc radius, int64_t count, typename Target::Out* out) {
  // `out` may be x, and nothing else overlaps: no value depends on another.
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    out[i] = linf_value<typename Target::Out, Target::kExact>(x[i], grad[i], origin[i], step, radius,
                                                              lower[i * kBoundStride], upper[i * kBoundStride]);
  }
}

template <typename T, typename Target>
void linf_step(const PgdStepArgs<T>& args, Target target) {
  const int64_t tasks_per_sample = (args.sample_size + kTile * kTilesPerTask - 1) / (kTile * kTilesPerTask);
  const auto run_tile = args.lower_bounds == nullptr ? linf_tile<Target, 0, acc_t<T>> : linf_tile<Target, 1, acc_t<T>>;
  parallel_for(args.samples * tasks_per_sample, 2, [&](int64_t first, int64_t last) {
    InputTile<T> in;
    for (int64_t task = first; task < last; ++task) {
      const int64_t sample = task / tasks_per_sample;
      if (args.active != nullptr && args.active[sample] == 0) continue;
      const int64_t begin = task % tasks_per_sample * kTile * kTilesPerTask;
      const SampleOptions<T> options(args, sample);
      for_each_tile(begin, std::min(begin + kTile * kTilesPerTask, args.sample_size), [&](int64_t i, int64_t count) {
        in.load(args, sample, i, count);
        store_tile(args, sample, i, count, target, [&](typename Target::Out* results) {
          run_tile(in.x, in.grad, in.origin, in.lower, in.upper, options.step, options.radius, count, results);
        });
      });
    }
  });
}

// The l2 norm over a sample of value(tile, j).
template <typename T, typename Value>
ScaledNorm norm_of(const PgdStepArgs<T>& args, int64_t sample, const Value& value) {
  const auto squares = [&](double unit) {
    return sum_tiles<double>(args.sample_size, [&](int64_t i, int64_t count) {
      InputTile<T> in;
      in.load(args, sample, i, count);
      return sum_values(count, [&](int64_t j) {
        const double v = value(in, j) * unit;
        return v * v;
      });
    });
  };
  const double sum = squares(1.0);
  if constexpr (std::is_same_v<acc_t<T>, double>) {
    const double unit = retry_unit(sum);
    return {std::sqrt(unit == 1.0 ? sum : squares(unit)), unit};
  } else {
    return scaled_norm(std::sqrt(sum));
  }
}

template <typename Target, typename Acc>
void l2_tile(const Acc* x, const Acc* grad, const Acc* origin, const Acc* lower, const Acc* upper, int64_t bound_stride,
             const Direction<Acc> direction, const L2Pull<Acc> pull, int64_t count, typename Target::Out* out) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    out[i] = l2_value<typename Target::Out, Target::kExact>(direction.moved(x[i], grad[i]), origin[i], pull,
                                                            lower[i * bound_stride], upper[i * bound_stride]);
  }
}

template <typename T, typename Target>
void l2_sample(const PgdStepArgs<T>& args, int64_t sample, Target target) {
  using Acc = acc_t<T>;
  using Out = typename Target::Out;
  using In = InputTile<T>;
  const SampleOptions<T> options(args, sample);
  const auto grad_norm = norm_of(args, sample, [](const In& in, int64_t j) { return double(in.grad[j]); });
  const Direction<Acc> direction(grad_norm, options.step);
  auto delta_norm = norm_of(args, sample, [=](const In& in, int64_t j) {
    return double(direction.moved(in.x[j], in.grad[j]) - in.origin[j]);
  });
  if (!std::isfinite(delta_norm.norm)) {  // rare, and twice as slow
    delta_norm = norm_of(args, sample, [=](const In& in, int64_t j) {
      return double(l2_distance(direction.moved(in.x[j], in.grad[j]), in.origin[j]));
    });
  }
  double radius = options.radius;
  if constexpr (!Target::kExact) {
    const auto rest =
        norm_of(args, sample, [](const In& in, int64_t j) { return in.template rest_distance<Target>(j); });
    radius = l2_radius(radius, rest.norm / rest.unit);
  }
  const L2Pull<Acc> pull(delta_norm, radius);

  parallel_for(args.sample_size, kTile * kTilesPerTask, [&](int64_t first, int64_t last) {
    In in;
    for_each_tile(first, last, [&](int64_t i, int64_t count) {
      in.load(args, sample, i, count);
      store_tile(args, sample, i, count, target, [&](Out* results) {
        l2_tile<Target>(in.x, in.grad, in.origin, in.lower, in.upper, in.bound_stride, direction, pull, count, results);
      });
    });
  });
}

// velocity = decay * velocity + grad / mean|grad|, with the mean over the positions that the mask leaves in.
template <typename T>
void update_velocity(const PgdStepArgs<T>& args, int64_t sample) {
  using Acc = acc_t<T>;
  const int64_t size = args.sample_size;
  const uint8_t* mask = args.mask == nullptr ? nullptr : args.mask + sample * args.mask_sample_stride;
  const double total = sum_tiles<double>(size, [&](int64_t i, int64_t count) {
    InputTile<T> in;
    in.load(args, sample, i, count);
    return sum_values(count, [&](int64_t j) { return std::fabs(double(in.grad[j])); });
  });
  const double positions = mask == nullptr ? size : sum_tiles<double>(size, [=](int64_t i, int64_t count) {
    return sum_values(count, [=](int64_t j) { return mask[i + j] != 0 ? 1.0 : 0.0; });
  });
  const Direction<Acc> normalised(scaled_norm(total / positions), 1.0);
  const Acc decay = static_cast<Acc>(args.decay);
  parallel_for(size, kTile * kTilesPerTask, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t at = sample * size + i;
      if (mask != nullptr && mask[i] == 0) continue;
      args.velocity[at] = narrow<T>(momentum(widen(args.velocity[at]), widen(args.grad[at]), decay, normalised));
    }
  });
}

// Calls run(sample) for the samples whose flag in `active` is `wanted`. They run in parallel; within a sample the
// passes are parallel only where there is a single sample.
template <typename T, typename Run>
void for_each_sample(const PgdStepArgs<T>& args, bool wanted, const Run& run) {
  parallel_for(args.samples, 1, [&](int64_t first, int64_t last) {
    for (int64_t sample = first; sample < last; ++sample) {
      if ((args.active == nullptr || args.active[sample] != 0) == wanted) run(sample);
    }
  });
}

}  // namespace

template <typename T>
void pgd_step(const PgdStepArgs<T>& given) {
  PgdStepArgs<T> args = with_storable_box(given);
  if (args.velocity != nullptr) {
    for_each_sample(args, true, [&](int64_t sample) { update_velocity(args, sample); });
    args.grad = args.velocity;
  }
  with_target(args, [&](auto target) {
    if (args.active != nullptr) {
      for_each_sample(args, false, [&](int64_t sample) {
        const int64_t at = sample * args.sample_size;
        copy_values(args.x + at, args.sample_size, target.out + at);
      });
    }
    switch (args.norm) {
      case PgdNorm::kLinf:
        return linf_step(args, target);
      case PgdNorm::kL2:
        return for_each_sample(args, true, [&](int64_t sample) { l2_sample(args, sample, target); });
      case PgdNorm::kL1:
        return for_each_sample(args, true, [&](int64_t sample) { l1_sample(args, sample, target); });
    }
  });
}

template void pgd_step<float>(const PgdStepArgs<float>&);
template void pgd_step<double>(const PgdStepArgs<double>&);
template void pgd_step<BFloat16>(const PgdStepArgs<BFloat16>&);
template void pgd_step<Half>(const PgdStepArgs<Half>&);

}  // namespace mdprop::MDPROP_ISA
