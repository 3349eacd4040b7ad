// multi_batch_norm on [N, C, S]: one task a (branch, channel). Its values fit the second-level cache for most layers,
// so that the statistics read memory and the normalisation reads cache.
#pragma once

#include "multi_batch_norm/multi_batch_norm_cpu.h"

namespace mdprop::MDPROP_ISA {
namespace {

constexpr int64_t kLanes = 32;

template <typename Acc>
struct Pair {
  Acc first, second;
};

// Sums of both members of term(i) for i in [0, count), over fixed lanes.
template <typename Acc, typename Term>
Pair<Acc> lane_sums(int64_t count, const Term& term) {
  alignas(64) Acc firsts[kLanes] = {}, seconds[kLanes] = {};
  const auto add = [&](int64_t lane, int64_t i) {
    const Pair<Acc> pair = term(i);
    firsts[lane] += pair.first;
    seconds[lane] += pair.second;
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) add(lane, i + lane);
  }
  for (int64_t lane = 0; i + lane < count; ++lane) add(lane, i + lane);
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t lane = 0; lane < width; ++lane) {
      firsts[lane] += firsts[lane + width];
      seconds[lane] += seconds[lane + width];
    }
  }
  return {firsts[0], seconds[0]};
}

// The values of one (branch, channel) as a sequence of runs of up to kTile values, with a mask applied if there is one.
// Short planes of several samples are gathered into one run, so that sums keep their lanes full at 7x7.
template <typename T, bool kMask = false>
class PlaneReader {
 public:
  using Acc = acc_t<T>;

  PlaneReader(const Shape& shape, const T* data, int64_t branch, int64_t channel, const uint8_t* mask = nullptr)
      : shape_(shape),
        data_(data),
        mask_(mask),
        channel_(channel),
        first_(shape.offsets[branch]),
        last_(shape.offsets[branch + 1]),
        samples_per_run_(std::max<int64_t>(1, kTile / shape.spatial)) {}

  int64_t runs() const {
    return shape_.spatial >= kTile ? (last_ - first_) * runs_per_plane()
                                   : (last_ - first_ + samples_per_run_ - 1) / samples_per_run_;
  }

  // The values of a run in sample order, in the storage or in a buffer that the next call overwrites.
  const Acc* read(int64_t run, int64_t* count) {
    if (shape_.spatial >= kTile) {
      const int64_t offset = run % runs_per_plane() * kTile, plane = plane_of(first_ + run / runs_per_plane());
      *count = std::min(kTile, shape_.spatial - offset);
      return tile_.load(data_ + plane * shape_.spatial + offset, *count, bits_of(plane), offset);
    }
    const int64_t begin = first_ + run * samples_per_run_, end = std::min(last_, begin + samples_per_run_);
    *count = (end - begin) * shape_.spatial;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t plane = plane_of(i);
      Acc* to = gathered_ + (i - begin) * shape_.spatial;
      widen_tile(data_ + plane * shape_.spatial, to, shape_.spatial);
      if constexpr (kMask) keep_marked(bits_of(plane), 0, to, shape_.spatial, to);
    }
    return gathered_;
  }

 private:
  int64_t runs_per_plane() const { return (shape_.spatial + kTile - 1) / kTile; }
  int64_t plane_of(int64_t i) const { return shape_.order[i] * shape_.channels + channel_; }
  const uint8_t* bits_of(int64_t plane) const { return kMask ? mask_ + plane * mask_bytes_per_line(shape_) : nullptr; }

  const Shape& shape_;
  const T* data_;
  const uint8_t* mask_;
  int64_t channel_, first_, last_, samples_per_run_;
  GradientTile<kMask, T> tile_;
  alignas(64) Acc gathered_[kTile];
};

template <typename T>
Moments plane_moments(PlaneReader<T>& reader) {
  using Acc = acc_t<T>;
  Moments total;
  for (int64_t run = 0; run < reader.runs(); ++run) {
    int64_t count;
    const Acc* MDPROP_RESTRICT x = reader.read(run, &count);
    const Acc centre =
        lane_sums<Acc>(count, [=](int64_t i) { return Pair<Acc>{x[i], 0}; }).first / static_cast<Acc>(count);
    const Pair<Acc> sums = lane_sums<Acc>(count, [=](int64_t i) {
      const Acc deviation = x[i] - centre;
      return Pair<Acc>{deviation, deviation * deviation};
    });
    // The deviations sum to what rounding took from the centre.
    const double rest = static_cast<double>(sums.first) / count;
    merge(total, {static_cast<double>(count), centre + rest, sums.second - rest * rest * count});
  }
  return total;
}

// Calls body(offset in x, count, offset in the mask) for the tiles of every plane of a (branch, channel).
template <typename Body>
void for_each_plane_tile(const Shape& shape, int64_t branch, int64_t channel, const Body& body) {
  for (int64_t i = shape.offsets[branch]; i < shape.offsets[branch + 1]; ++i) {
    const int64_t plane = shape.order[i] * shape.channels + channel;
    for_each_tile(0, shape.spatial, [&](int64_t offset, int64_t count) {
      body(plane * shape.spatial + offset, count, plane * mask_bytes_per_line(shape) + offset / 8);
    });
  }
}

// Calls body(branch, channel, [B, C] position) for every pair, in parallel.
template <typename Body>
void for_each_plane(const Shape& shape, const Body& body) {
  const int64_t pairs = shape.branches * shape.channels;
  const int64_t values_per_pair = std::max<int64_t>(1, shape.samples * shape.spatial / shape.branches);
  parallel_for(pairs, std::max<int64_t>(1, kValuesPerTask / values_per_pair), [&](int64_t first, int64_t last) {
    for (int64_t at = first; at < last; ++at) body(at / shape.channels, at % shape.channels, at);
  });
}

template <typename T>
void plane_statistics(const MultiBatchNormStatisticsArgs<T>& args) {
  for_each_plane(args.shape, [&](int64_t branch, int64_t channel, int64_t) {
    PlaneReader<T> reader(args.shape, args.x, branch, channel);
    store_moments(args, plane_moments(reader), branch, channel);
  });
}

template <bool kRelu, bool kResidual, typename T>
void normalise_tile(const acc_t<T>* MDPROP_RESTRICT x, const acc_t<T>* MDPROP_RESTRICT residual,
                    Affine<acc_t<T>> affine, int64_t count, T* MDPROP_RESTRICT y) {
  for (int64_t i = 0; i < count; ++i) {
    const acc_t<T> value = kResidual ? affine(x[i]) + residual[i] : affine(x[i]);
    y[i] = narrow<T>(kRelu ? relu(value) : value);
  }
}

template <bool kRelu, bool kResidual, typename T>
void normalise_planes(const MultiBatchNormForwardArgs<T>& args, int64_t branch, int64_t channel, int64_t at) {
  const auto affine = affine_of(args, at);
  Tile<T> x_tile, residual_tile;
  for_each_plane_tile(args.shape, branch, channel, [&](int64_t i, int64_t count, int64_t byte) {
    const acc_t<T>* residual = kResidual ? residual_tile.load(args.residual + i, count) : nullptr;
    normalise_tile<kRelu, kResidual>(x_tile.load(args.x + i, count), residual, affine, count, args.y + i);
    if (args.mask != nullptr) mark_positive(args.y + i, count, args.mask + byte);
  });
}

template <typename T>
void forward_planes(const MultiBatchNormForwardArgs<T>& args) {
  const Shape& shape = args.shape;
  with_flags(shape.relu, args.residual != nullptr, [&](auto relu, auto residual) {
    for_each_plane(shape, [&](int64_t branch, int64_t channel, int64_t at) {
      if (shape.training) {
        PlaneReader<T> reader(shape, args.x, branch, channel);
        store_statistics(args, plane_moments(reader), at);
      }
      normalise_planes<relu(), residual()>(args, branch, channel, at);
    });
  });
}

// Sums of g and of g * (x - mean) over one (branch, channel).
template <Cut kCut, typename T>
GradientSums plane_sums(const MultiBatchNormBackwardArgs<T>& args, Affine<acc_t<T>> affine, int64_t branch,
                        int64_t channel) {
  using Acc = acc_t<T>;
  PlaneReader<T, kCut == Cut::kMask> grads(args.shape, args.grad, branch, channel, args.mask);
  PlaneReader<T> inputs(args.shape, args.x, branch, channel);
  GradientSums total{static_cast<double>(count_of(args.shape, branch))};
  for (int64_t run = 0; run < grads.runs(); ++run) {
    int64_t count;
    const Acc* MDPROP_RESTRICT grad = grads.read(run, &count);
    const Acc* MDPROP_RESTRICT x = inputs.read(run, &count);
    const Pair<Acc> sums = lane_sums<Acc>(count, [=](int64_t i) {
      const Acc g = through_relu<kCut == Cut::kRecomputed>(grad[i], x[i], affine);
      return Pair<Acc>{g, g * (x[i] - affine.mean)};
    });
    total.grad += sums.first;
    total.product += sums.second;
  }
  return total;
}

template <bool kRelu, bool kTraining, typename T>
void gradient_tile(const acc_t<T>* MDPROP_RESTRICT grad, [[maybe_unused]] const acc_t<T>* MDPROP_RESTRICT x,
                   Affine<acc_t<T>> affine, InputGradient<acc_t<T>> formula, int64_t count, T* MDPROP_RESTRICT grad_x) {
  for (int64_t i = 0; i < count; ++i) {
    acc_t<T> g = grad[i];
    if constexpr (kRelu) g = through_relu<true>(g, x[i], affine);
    if constexpr (kTraining) {
      grad_x[i] = narrow<T>(formula(g, x[i], affine));
    } else {
      grad_x[i] = narrow<T>(affine.scale * g);
    }
  }
}

template <Cut kCut, bool kTraining, typename T>
void gradient_planes(const MultiBatchNormBackwardArgs<T>& args, Affine<acc_t<T>> affine,
                     InputGradient<acc_t<T>> formula, int64_t branch, int64_t channel) {
  GradientTile<kCut == Cut::kMask, T> grad_tile;
  Tile<T> x_tile;
  for_each_plane_tile(args.shape, branch, channel, [&](int64_t i, int64_t count, int64_t byte) {
    const uint8_t* bits = kCut == Cut::kMask ? args.mask + byte : nullptr;
    const acc_t<T>* grad = grad_tile.load(args.grad + i, count, bits, 0);
    const acc_t<T>* x = kTraining || kCut == Cut::kRecomputed ? x_tile.load(args.x + i, count) : nullptr;
    gradient_tile<kCut == Cut::kRecomputed, kTraining>(grad, x, affine, formula, count, args.grad_x + i);
    if (kCut == Cut::kMask && args.grad_residual != nullptr) narrow_tile(grad, args.grad_residual + i, count);
  });
}

template <typename T>
void backward_planes(const MultiBatchNormBackwardArgs<T>& args) {
  with_cut(args, [&](auto cut, auto training) {
    for_each_plane(args.shape, [&](int64_t branch, int64_t channel, int64_t at) {
      const auto affine = affine_of(args, at);
      GradientSums sums;
      if (needs_own_sums(args)) sums = plane_sums<cut()>(args, affine, branch, channel);
      const auto formula = use_sums(args, sums, branch, channel);
      if (args.grad_x != nullptr) gradient_planes<cut(), training()>(args, affine, formula, branch, channel);
    });
  });
}

}  // namespace
}  // namespace mdprop::MDPROP_ISA
