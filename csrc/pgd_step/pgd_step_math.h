// The formulas of pgd_step for one value, shared by CPU and CUDA.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "common/numeric.h"

MDPROP_ISA_BEGIN

// Scales of perturbations are this much too small, so that the roundings of values and sums cannot leave the ball.
template <typename Acc>
constexpr double kBallSlack = sizeof(Acc) == 4 ? 1.0 - 0x1p-22 : 1.0 - 0x1p-47;

// Neighbours of a finite value in its own format. Both infinities and NaN must not come in.
template <typename Bits, typename T>
MDPROP_HOST_DEVICE T next_value(T value, bool upwards) {
  constexpr Bits kSign = Bits{1} << (8 * sizeof(Bits) - 1);
  const Bits bits = bit_cast<Bits>(value);
  const Bits down = upwards ? kSign : Bits{0};  // the sign with which a smaller magnitude is the wanted neighbour
  const Bits moved = (bits & kSign) == down ? Bits(bits - 1) : Bits(bits + 1);
  const Bits from_zero = upwards ? Bits{1} : Bits(kSign | 1);
  return bit_cast<T>((bits & Bits(~kSign)) == 0 ? from_zero : moved);
}
MDPROP_HOST_DEVICE float next_below(float value) { return next_value<uint32_t>(value, false); }
MDPROP_HOST_DEVICE float next_above(float value) { return next_value<uint32_t>(value, true); }
MDPROP_HOST_DEVICE double next_below(double value) { return next_value<uint64_t>(value, false); }
MDPROP_HOST_DEVICE double next_above(double value) { return next_value<uint64_t>(value, true); }
MDPROP_HOST_DEVICE BFloat16 next_below(BFloat16 value) { return next_value<uint16_t>(value, false); }
MDPROP_HOST_DEVICE BFloat16 next_above(BFloat16 value) { return next_value<uint16_t>(value, true); }
MDPROP_HOST_DEVICE Half next_below(Half value) { return next_value<uint16_t>(value, false); }
MDPROP_HOST_DEVICE Half next_above(Half value) { return next_value<uint16_t>(value, true); }

// The largest Acc that is not above `value`: a radius given in fp64 must not grow in fp32.
template <typename Acc>
MDPROP_HOST_DEVICE Acc round_down(double value) {
  const Acc rounded = static_cast<Acc>(value);
  return static_cast<double>(rounded) > value ? next_below(rounded) : rounded;
}

// `value` moved by one or two units in its last place. Cheaper than the exact neighbour, so that it costs little where
// only a few values of a loop need it.
template <typename Acc>
MDPROP_HOST_DEVICE Acc slightly_below(Acc value) {
  constexpr Acc kUnit = sizeof(Acc) == 4 ? Acc(0x1p-23) : Acc(0x1p-52);
  return value - (value < 0 ? -value : value) * kUnit;
}
template <typename Acc>
MDPROP_HOST_DEVICE Acc slightly_above(Acc value) {
  return -slightly_below(-value);
}

// max and min that keep a NaN in `value`, and `value` itself where the two are equal, as torch.clamp does. One
// comparison each, without a branch, so that loops vectorise.
template <typename Acc>
MDPROP_HOST_DEVICE Acc at_least(Acc value, Acc bound) {
  return value < bound ? bound : value;
}
template <typename Acc>
MDPROP_HOST_DEVICE Acc at_most(Acc value, Acc bound) {
  return value > bound ? bound : value;
}

template <typename Acc>
MDPROP_HOST_DEVICE Acc sign(Acc value) {
  return static_cast<Acc>(value > 0) - static_cast<Acc>(value < 0);
}

// A byte of an image as a number of [0, 1].
template <typename Acc>
MDPROP_HOST_DEVICE Acc byte_value(uint8_t value) {
  return static_cast<Acc>(value) / Acc(255);
}

template <typename Acc>
MDPROP_HOST_DEVICE Acc clamp_to(Acc value, Acc lower, Acc upper) {
  return at_most(at_least(value, lower), upper);
}

template <typename Acc>
constexpr Acc kLargestFinite = std::numeric_limits<Acc>::max();

// The largest finite value in the place of an infinite one, so that a projection can scale it.
template <typename Acc>
MDPROP_HOST_DEVICE Acc finite(Acc value) {
  return clamp_to(value, -kLargestFinite<Acc>, kLargestFinite<Acc>);
}

// |value|, and 0 where that is NaN.
template <typename Acc>
MDPROP_HOST_DEVICE Acc magnitude(Acc value) {
  const Acc size = std::fabs(value);
  return size > 0 ? size : Acc(0);
}

// Rounds to the storage type without leaving [low, high], if that holds a storable value.
template <typename Out, typename Acc>
MDPROP_HOST_DEVICE Out narrow_between(Acc value, Acc low, Acc high) {
  const Out rounded = narrow<Out>(value);
  return widen(rounded) > high ? next_below(rounded) : widen(rounded) < low ? next_above(rounded) : rounded;
}

// Moves the ends of a box inwards to values that T can store, which changes no result in T. A box without such a value
// stays as it is.
template <typename T>
MDPROP_HOST_DEVICE void make_storable(acc_t<T>& lower, acc_t<T>& upper) {
  if constexpr (sizeof(T) < sizeof(acc_t<T>)) {
    const acc_t<T> low = widen(narrow_between<T>(lower, lower, acc_t<T>(INFINITY)));
    const acc_t<T> high = widen(narrow_between<T>(upper, acc_t<T>(-INFINITY), upper));
    const bool holds = low <= high;
    lower = holds ? low : lower;
    upper = holds ? high : upper;
  }
}

// The arguments with the numbers of their box made storable.
template <template <typename> typename Args, typename T>
Args<T> with_storable_box(Args<T> args) {
  make_storable<T>(args.lower, args.upper);
  return args;
}

// Rounds to the type of the result within [low, high], which holds `centre`. Where that is not storable (kExact false),
// the interval may hold no storable value; then the result is the storable value of the box nearest to the centre.
template <typename Out, bool kExact, typename Acc>
MDPROP_HOST_DEVICE Out narrow_near(Acc value, Acc low, Acc high, Acc centre, Acc lower, Acc upper) {
  if constexpr (sizeof(Out) == sizeof(Acc)) {
    return narrow<Out>(value);
  } else if constexpr (kExact) {
    return narrow_between<Out>(value, low, high);
  } else {
    // Rounding is monotonic: between storable limits it stays between them.
    const Acc nearest = widen(narrow_between<Out>(centre, lower, upper));
    const Acc first = widen(narrow_between<Out>(low, low, Acc(INFINITY)));
    const Acc last = widen(narrow_between<Out>(high, Acc(-INFINITY), high));
    return narrow<Out>(clamp_to(value, first > last ? nearest : first, first > last ? nearest : last));
  }
}

// How far narrow_near may end from a centre in the box even if the value is at the centre; 0 where that is NaN.
template <typename Out, typename Acc>
MDPROP_HOST_DEVICE Acc rounding_distance(Acc centre, Acc lower, Acc upper) {
  return magnitude(widen(narrow_between<Out>(centre, lower, upper)) - centre);
}

// One value of the linf step. `origin + radius` may round outwards; the bound then moves in, but not past the origin.
// The limits lie in the box, which wins where the origin lies outside of it.
template <typename Out, bool kExact, typename Acc>
MDPROP_HOST_DEVICE Out linf_value(Acc x, Acc grad, Acc origin, Acc step, Acc radius, Acc lower, Acc upper) {
  Acc high = origin + radius, low = origin - radius;
  high = high - origin > radius ? at_least(slightly_below(high), origin) : high;
  low = origin - low > radius ? at_most(slightly_above(low), origin) : low;
  high = clamp_to(high, lower, upper);
  low = clamp_to(low, lower, upper);
  const Acc value = clamp_to(x + step * sign(grad), low, high);
  const Acc centre = clamp_to(origin, lower, upper);
  return narrow_near<Out, kExact>(origin != origin ? origin : value, low, high, centre, lower, upper);
}

// Puts a value at most `limit` from the origin into the box and into storage. Rounding goes towards the origin, so that
// no coordinate, and hence no norm, grows.
template <typename Out, bool kExact, typename Acc>
MDPROP_HOST_DEVICE Out place_value(Acc value, Acc limit, Acc origin, Acc lower, Acc upper) {
  value = value - origin > limit ? at_least(slightly_below(value), origin) : value;
  value = origin - value > limit ? at_most(slightly_above(value), origin) : value;
  value = clamp_to(value, lower, upper);
  const Acc centre = clamp_to(origin, lower, upper);
  return narrow_near<Out, kExact>(value, at_most(value, centre), at_least(value, centre), centre, lower, upper);
}

// A norm of `unit` times some values; `unit` is a power of two that keeps tiny and huge values in range.
struct ScaledNorm {
  double norm;
  double unit;
};

// The unit for fp32 values, whose norm in fp64 is always in range, so that scales in fp32 are too.
MDPROP_HOST_DEVICE ScaledNorm scaled_norm(double norm) {
  const double unit = norm < 0x1p-60 ? 0x1p80 : norm > 0x1p60 ? 0x1p-80 : 1.0;
  return {norm * unit, unit};
}

// For squares of fp64 values: another unit to try where their sum may have left the range, else 1.
MDPROP_HOST_DEVICE double retry_unit(double squares) {
  return !(squares <= 0x1p1000) ? 0x1p-600 : squares < 0x1p-900 ? 0x1p600 : 1.0;
}

// A vector of length `step` along a gradient: scale * (unit * grad). A zero or NaN gradient moves nothing.
template <typename Acc>
struct Direction {
  Acc unit;
  Acc scale;

  MDPROP_HOST_DEVICE Direction(ScaledNorm grad, double step)
      : unit(static_cast<Acc>(grad.unit)),
        scale(grad.norm > 0 && grad.norm <= kLargestFinite<double> ? static_cast<Acc>(step / grad.norm) : Acc(0)) {}
  MDPROP_HOST_DEVICE Acc along(Acc grad) const { return scale * (unit * grad); }
  MDPROP_HOST_DEVICE Acc moved(Acc x, Acc grad) const { return scale == 0 ? x : x + along(grad); }
};

// What a value adds to the length of its sample's perturbation: a NaN, which stays one, adds nothing.
template <typename Acc>
MDPROP_HOST_DEVICE Acc l2_distance(Acc moved, Acc origin) {
  return at_most(magnitude(moved - origin), kLargestFinite<Acc>);
}

// Pulls a sample's perturbation of the given norm back onto the ball, if it is outside.
template <typename Acc>
struct L2Pull {
  Direction<Acc> inwards;
  bool outside;

  MDPROP_HOST_DEVICE L2Pull(ScaledNorm delta, double radius)
      : inwards(delta, radius * kBallSlack<Acc>), outside(delta.norm > radius * delta.unit) {}
};

// One value of the l2 step: `moved` is x + direction.
template <typename Out, bool kExact, typename Acc>
MDPROP_HOST_DEVICE Out l2_value(Acc moved, Acc origin, const L2Pull<Acc>& pull, Acc lower, Acc upper) {
  const Acc pulled = pull.inwards.along(finite(moved - origin));
  const Acc value = pull.outside ? origin + pulled : moved;
  const Acc limit = pull.outside ? std::fabs(pulled) : Acc(INFINITY);
  return place_value<Out, kExact>(origin != origin ? origin : value, limit, origin, lower, upper);
}

// The radius that is left when the roundings of values at rest, which have the length `used`, are paid for.
MDPROP_HOST_DEVICE double l2_radius(double radius, double used) {
  return used < radius ? sqrt((radius - used) * (radius + used)) : 0.0;
}

// The momentum of MI-FGSM: `normalised` has length 1 in the mean absolute value.
template <typename Acc>
MDPROP_HOST_DEVICE Acc momentum(Acc velocity, Acc grad, Acc decay, const Direction<Acc>& normalised) {
  return normalised.moved(decay * velocity, grad);
}

MDPROP_ISA_END
