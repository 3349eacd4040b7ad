// What both CPU layouts of multi_batch_norm share. Included by its kernels only.
#pragma once

#include <algorithm>
#include <type_traits>

#include "common/parallel.h"
#include "common/simd.h"
#include "common/tile.h"
#include "common/welford.h"
#include "multi_batch_norm/multi_batch_norm.h"
#include "multi_batch_norm/multi_batch_norm_math.h"

namespace mdprop::MDPROP_ISA {
namespace {

using Shape = MultiBatchNormShape;

constexpr int64_t kValuesPerTask = 1 << 14;  // below this much work a second thread does not pay

template <typename Args>
auto affine_of(const Args& args, int64_t at) {
  return affine_at<std::decay_t<decltype(*args.mean)>>(args.weight, args.bias, args.mean, args.var, args.shape.eps, at);
}

// The statistics of one (branch, channel), as forward uses them and as the half that only computes them gives them.
template <typename T>
void store_statistics(const MultiBatchNormForwardArgs<T>& args, const Moments& moments, int64_t at) {
  args.mean[at] = static_cast<acc_t<T>>(moments.mean);
  args.var[at] = static_cast<acc_t<T>>(moments.count > 0 ? moments.m2 / moments.count : 0);
}

template <typename T>
void store_moments(const MultiBatchNormStatisticsArgs<T>& args, const Moments& moments, int64_t branch,
                   int64_t channel) {
  const int64_t channels = args.shape.channels;
  if (channel == 0) args.moments[count_entry(channels, branch)] = moments.count;
  args.moments[first_entry(channels, branch, channel)] = moments.mean;
  args.moments[second_entry(channels, branch, channel)] = moments.m2;
}

// Calls body(flag, flag) with two std::bool_constant.
template <typename Body>
void with_flags(bool first, bool second, const Body& body) {
  const auto with_second = [&](auto one) { second ? body(one, std::true_type{}) : body(one, std::false_type{}); };
  first ? with_second(std::true_type{}) : with_second(std::false_type{});
}

// How backward learns what relu cut off.
enum class Cut { kNone, kRecomputed, kMask };

// Calls body(std::integral_constant<Cut, ...>, std::bool_constant<training>).
template <typename Args, typename Body>
void with_cut(const Args& args, const Body& body) {
  const auto with_training = [&](auto cut) {
    args.shape.training ? body(cut, std::true_type{}) : body(cut, std::false_type{});
  };
  if (args.mask != nullptr) return with_training(std::integral_constant<Cut, Cut::kMask>{});
  if (args.shape.relu) return with_training(std::integral_constant<Cut, Cut::kRecomputed>{});
  with_training(std::integral_constant<Cut, Cut::kNone>{});
}

// Sets bit i of `bits` where values[i] > 0, and clears the spare bits of the last byte.
template <typename T>
void mark_positive(const T* stored, int64_t count, uint8_t* bits) {
  using Acc = acc_t<T>;
  using Lanes = Simd<Acc>;
  Tile<T> tile;
  const Acc* values = tile.load(stored, count);
  const auto zeros = Lanes::broadcast(0);
  const auto word = [&](const Acc* from) {
    uint64_t result = 0;
    for (int lane = 0; lane < 64; lane += Lanes::kLanes) {
      const uint64_t cut = Lanes::not_greater(Lanes::load(from + lane), zeros);
      result |= (~cut & ((uint64_t(1) << Lanes::kLanes) - 1)) << lane;
    }
    return result;
  };
  int64_t i = 0;
  for (; i + 64 <= count; i += 64) {
    const uint64_t marks = word(values + i);
    for (int byte = 0; byte < 8; ++byte) bits[i / 8 + byte] = static_cast<uint8_t>(marks >> 8 * byte);
  }
  if (i == count) return;
  alignas(64) Acc rest[64] = {};
  std::copy(values + i, values + count, rest);
  const uint64_t marks = word(rest);
  for (int byte = 0; byte < (count - i + 7) / 8; ++byte) bits[i / 8 + byte] = static_cast<uint8_t>(marks >> 8 * byte);
}

// kept[i] = values[i] where bit first + i is set, else 0; `kept` may be `values`.
template <typename Acc>
void keep_marked(const uint8_t* bits, int64_t first, const Acc* values, int64_t count, Acc* kept) {
  int64_t i = 0;
  for (; first % 8 == 0 && i + 8 <= count; i += 8) {
    const int byte = bits[(first + i) / 8];
    for (int lane = 0; lane < 8; ++lane) kept[i + lane] = byte & 1 << lane ? values[i + lane] : 0;
  }
  for (; i < count; ++i) kept[i] = bits[(first + i) / 8] >> (first + i) % 8 & 1 ? values[i] : 0;
}

// A run of a gradient in its compute type, with the mask applied if there is one.
template <bool kMask, typename T>
class GradientTile {
 public:
  // Bit `first` of `bits` belongs to source[0].
  const acc_t<T>* load(const T* source, int64_t count, [[maybe_unused]] const uint8_t* bits,
                       [[maybe_unused]] int64_t first) {
    const acc_t<T>* values = tile_.load(source, count);
    if constexpr (kMask) {
      keep_marked(bits, first, values, count, kept_);
      return kept_;
    } else {
      return values;
    }
  }

 private:
  Tile<T> tile_;
  alignas(64) acc_t<T> kept_[kMask ? kTile : 1];
};

// Sums of g and of g * (x - mean) over one (branch, channel), over `count` values.
struct GradientSums {
  double count = 0, grad = 0, product = 0;
};

// Gives what the caller wants of the sums of one (branch, channel), and the input gradient's coefficients: 0 where the
// statistics are constants.
template <typename T>
InputGradient<acc_t<T>> use_sums(const MultiBatchNormBackwardArgs<T>& args, const GradientSums& own, int64_t branch,
                                 int64_t channel) {
  using Acc = acc_t<T>;
  const int64_t channels = args.shape.channels, at = branch * channels + channel;
  const int64_t count = count_entry(channels, branch), first = first_entry(channels, branch, channel),
                second = second_entry(channels, branch, channel);
  if (args.sums != nullptr) {
    if (channel == 0) args.sums[count] = own.count;
    args.sums[first] = own.grad;
    args.sums[second] = own.product;
  }
  if (args.grad_weight != nullptr) {
    args.grad_weight[at] = static_cast<Acc>(own.product * inverse_at(args.var, at, args.shape.eps));
    args.grad_bias[at] = static_cast<Acc>(own.grad);
  }
  if (!args.shape.training) return {0, 0};
  const double* total = args.total_sums;
  return total == nullptr ? input_gradient(own.grad, own.product, own.count, args.var[at], args.shape.eps)
                          : input_gradient(total[first], total[second], total[count], args.var[at], args.shape.eps);
}

// Whether the values of this batch have to be summed.
template <typename T>
bool needs_own_sums(const MultiBatchNormBackwardArgs<T>& args) {
  return args.sums != nullptr || args.grad_weight != nullptr || (args.shape.training && args.total_sums == nullptr);
}

}  // namespace
}  // namespace mdprop::MDPROP_ISA
