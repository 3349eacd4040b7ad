// The formulas of pgd_step for one value, shared by CPU and CUDA.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/numeric.h"

MDPROP_ISA_BEGIN

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

// Rounds to the storage type without leaving [low, high], which must hold a storable value.
template <typename T>
MDPROP_HOST_DEVICE T narrow_between(acc_t<T> value, acc_t<T> low, acc_t<T> high) {
  if constexpr (sizeof(T) == sizeof(acc_t<T>)) {
    return narrow<T>(value);
  } else {
    const T rounded = narrow<T>(value);
    return widen(rounded) > high ? next_below(rounded) : widen(rounded) < low ? next_above(rounded) : rounded;
  }
}

// One value of the linf step. `origin + radius` may round outwards; the bound then moves in, but not past the origin.
// The limits lie in the box, which wins where the origin lies outside of it.
template <typename T, typename Acc = acc_t<T>>
MDPROP_HOST_DEVICE T linf_value(Acc x, Acc grad, Acc origin, Acc step, Acc radius, Acc lower, Acc upper) {
  Acc high = origin + radius, low = origin - radius;
  high = high - origin > radius ? at_least(slightly_below(high), origin) : high;
  low = origin - low > radius ? at_most(slightly_above(low), origin) : low;
  high = at_most(at_least(high, lower), upper);
  low = at_most(at_least(low, lower), upper);
  const Acc value = at_most(at_least(x + step * sign(grad), low), high);
  return narrow_between<T>(origin != origin ? origin : value, low, high);
}

// One value of the l2 step: `moved` is x + scale * grad; shrink < 1 pulls it back onto the ball. Rounding goes towards
// the origin, so that no coordinate, and hence not the norm, grows.
template <typename T, typename Acc = acc_t<T>>
MDPROP_HOST_DEVICE T l2_value(Acc moved, Acc origin, Acc shrink, Acc lower, Acc upper) {
  const Acc delta = (moved - origin) * shrink;
  Acc value = shrink < 1 ? origin + delta : moved;
  const Acc limit = delta < 0 ? -delta : delta;
  value = value - origin > limit ? at_least(slightly_below(value), origin) : value;
  value = origin - value > limit ? at_most(slightly_above(value), origin) : value;
  value = at_most(at_least(value, lower), upper);
  const Acc inside = at_most(at_least(origin, lower), upper);
  return narrow_between<T>(value, at_most(value, inside), at_least(value, inside));
}

// What a sample's perturbation of the given norm is multiplied by. Slightly less than radius / norm, so that the
// rounding of the products cannot leave the ball.
template <typename Acc>
MDPROP_HOST_DEVICE Acc l2_shrink(double norm, Acc radius) {
  constexpr double kSlack = sizeof(Acc) == 4 ? 1.0 - 0x1p-22 : 1.0 - 0x1p-50;
  return norm > static_cast<double>(radius) ? static_cast<Acc>(static_cast<double>(radius) / norm * kSlack) : Acc(1);
}

MDPROP_ISA_END
