// The exact projection onto the l1 ball around an origin and the box together, shared by CPU and CUDA.
//
// With centre = clamp(origin, lower, upper), the nearest point of both to v is centre + sign(v - centre) * pull(lambda)
// per value, where
//   pull(lambda) = min(max(reach - lambda, 0), room),  reach = |v - centre|,  room = distance of centre to the bound
//   ahead,
// and lambda >= 0 is the same for the whole sample: 0 if that point is in the ball, else such that the pulls add up to
// the radius, less the distance from origin to centre. Their sum falls with lambda, linearly between breakpoints.
// L1Search finds lambda by Newton's method on that function, kept in a bracket; the caller gives it the sum for one
// lambda after the other. It ends on a linear piece, or between two neighbouring floating-point numbers, and there
// divides the difference: so the result is exact to rounding even where lambda itself cannot be stored finely enough.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "pgd_step/pgd_step_math.h"

MDPROP_ISA_BEGIN

template <typename Acc>
struct L1Coordinate {
  Acc centre;
  Acc reach;  // finite, or NaN where x or origin is
  Acc room;
  Acc sign;
};

template <typename Acc>
MDPROP_HOST_DEVICE L1Coordinate<Acc> l1_coordinate(Acc moved, Acc origin, Acc lower, Acc upper) {
  const Acc centre = clamp_to(origin, lower, upper), delta = moved - centre;
  const bool up = delta > 0;
  return {centre, finite(up ? delta : -delta), up ? upper - centre : centre - lower, up ? Acc(1) : Acc(-1)};
}

// 0 where reach is NaN.
template <typename Acc>
MDPROP_HOST_DEVICE Acc l1_pull(Acc reach, Acc room, Acc lambda) {
  const Acc above = reach - lambda;
  return above > 0 ? at_most(above, room) : Acc(0);
}

// What one pass over a sample finds for one lambda.
struct L1Sums {
  double total = 0;  // of the pulls
  int64_t free = 0;  // how many lie strictly between 0 and room
  int64_t full = 0;  // how many are at room

  MDPROP_HOST_DEVICE void operator+=(const L1Sums& other) {
    total += other.total;
    free += other.free;
    full += other.full;
  }
};

// Where the search ended: pull(high) + share * (pull(low) - pull(high)) is the pull of a value; with high = 0 the point
// is in the ball, and stays.
template <typename Acc>
struct L1Solution {
  Acc low = 0;
  Acc high = 0;
  Acc share = 0;

  MDPROP_HOST_DEVICE Acc pull(Acc reach, Acc room) const {
    const Acc least = l1_pull(reach, room, high);
    return least + share * (l1_pull(reach, room, low) - least);
  }
};

template <typename Acc>
class L1Search {
 public:
  // `at_zero` are the sums for lambda = 0, `radius` what the pulls may add up to.
  MDPROP_HOST_DEVICE L1Search(double radius, const L1Sums& at_zero) : L1Search(radius, at_zero.total, 0, at_zero) {}

  // The same with the total for 0 and all sums for another first lambda, from which the search goes on.
  MDPROP_HOST_DEVICE L1Search(double radius, double total_at_zero, Acc lambda, const L1Sums& at_lambda)
      : target_(radius * kBallSlack<Acc>) {
    if (total_at_zero <= radius) return;
    solution_.high = kInfinity;  // pulls every value to the centre
    if (target_ > 0) {
      at_low_.total = total_at_zero;
      at_low_.free = -1;  // unlike that of any other lambda
      lambda_ = lambda;
      update(at_lambda);
    } else {
      solution_.low = kInfinity;
    }
  }

  MDPROP_HOST_DEVICE bool searching() const { return searching_; }
  MDPROP_HOST_DEVICE Acc lambda() const { return lambda_; }
  MDPROP_HOST_DEVICE const L1Solution<Acc>& solution() const { return solution_; }

  // Takes the sums for lambda() and chooses the next one.
  MDPROP_HOST_DEVICE void update(const L1Sums& sums) {
    (sums.total > target_ ? solution_.low : solution_.high) = lambda_;
    (sums.total > target_ ? at_low_ : at_high_) = sums;
    const bool one_piece = at_low_.free == at_high_.free && at_low_.full == at_high_.full;
    const bool close = at_high_.total >= target_ * kBallSlack<Acc>;
    if (!close && !one_piece && next_above(solution_.low) < solution_.high) {
      return propose(sums);
    }
    searching_ = false;
    if (close) {
      solution_.low = solution_.high;
    } else {
      solution_.share = static_cast<Acc>((target_ - at_high_.total) / (at_low_.total - at_high_.total));
    }
  }

 private:
  using Bits = std::conditional_t<sizeof(Acc) == 4, uint32_t, uint64_t>;
  static constexpr Acc kInfinity = std::numeric_limits<Acc>::infinity();
  static constexpr int kNewtonSteps = 16;  // more than they take as a rule; bisection then needs at most 32 or 64

  // Newton's step from the last lambda if it stays in the bracket, else the middle of the bracket in the order of bits,
  // which halves the number of floating-point numbers that are left whatever their size.
  MDPROP_HOST_DEVICE void propose(const L1Sums& at_lambda) {
    searching_ = true;
    const Acc low = solution_.low, high = solution_.high;
    const Acc newton = static_cast<Acc>(static_cast<double>(lambda_) +
                                        (at_lambda.total - target_) / static_cast<double>(at_lambda.free));
    const bool usable = ++steps_ <= kNewtonSteps && at_lambda.free > 0 && newton >= low && newton <= high;
    const Bits low_bits = bit_cast<Bits>(low), high_bits = bit_cast<Bits>(high);
    if (!usable) {
      lambda_ = bit_cast<Acc>(low_bits + (high_bits - low_bits) / 2);
    } else {
      lambda_ = newton == low ? next_above(low) : newton == high ? next_below(high) : newton;
    }
  }

  double target_;
  L1Sums at_low_, at_high_;
  L1Solution<Acc> solution_;
  Acc lambda_ = 0;
  int steps_ = 0;
  bool searching_ = false;
};

// One value of the l1 step: `moved` is x + step * sign(grad).
template <typename Out, bool kExact, typename Acc>
MDPROP_HOST_DEVICE Out l1_value(Acc moved, Acc origin, const L1Solution<Acc>& solution, Acc lower, Acc upper) {
  const L1Coordinate<Acc> at = l1_coordinate(moved, origin, lower, upper);
  const Acc pull = solution.high > 0 ? solution.pull(at.reach, at.room) : Acc(INFINITY);
  const Acc value = solution.high > 0 ? at.centre + at.sign * pull : moved;
  return place_value<Out, kExact>(at.reach != at.reach ? at.reach : value, pull, at.centre, lower, upper);
}

MDPROP_ISA_END
