// multi_batch_norm on [N, C, S]: one task a (branch, channel). Its values fit the second-level cache for most layers,
// so that the statistics read memory and the normalisation reads cache.
#pragma once

#include "common/welford.h"
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

// The values of one (branch, channel) as a sequence of runs of up to kTile values. Short planes of several samples are
// gathered into one run, so that sums keep their lanes full at 7x7.
template <typename T>
class PlaneReader {
 public:
  using Acc = acc_t<T>;

  PlaneReader(const Shape& shape, const T* data, int64_t branch, int64_t channel)
      : shape_(shape),
        data_(data + channel * shape.spatial),
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
      const int64_t offset = run % runs_per_plane() * kTile;
      *count = std::min(kTile, shape_.spatial - offset);
      return tile_.load(plane(first_ + run / runs_per_plane()) + offset, *count);
    }
    const int64_t begin = first_ + run * samples_per_run_, end = std::min(last_, begin + samples_per_run_);
    *count = (end - begin) * shape_.spatial;
    for (int64_t i = begin; i < end; ++i) {
      widen_tile(plane(i), gathered_ + (i - begin) * shape_.spatial, shape_.spatial);
    }
    return gathered_;
  }

 private:
  int64_t runs_per_plane() const { return (shape_.spatial + kTile - 1) / kTile; }
  const T* plane(int64_t i) const { return data_ + shape_.order[i] * shape_.channels * shape_.spatial; }

  const Shape& shape_;
  const T* data_;
  int64_t first_, last_, samples_per_run_;
  Tile<T> tile_;
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

// Calls body(offset, count) for the tiles of every plane of a (branch, channel); offsets count from the start of x.
template <typename Body>
void for_each_plane_tile(const Shape& shape, int64_t branch, int64_t channel, const Body& body) {
  for (int64_t i = shape.offsets[branch]; i < shape.offsets[branch + 1]; ++i) {
    const int64_t start = (shape.order[i] * shape.channels + channel) * shape.spatial;
    for_each_tile(start, start + shape.spatial, body);
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

template <bool kRelu, typename T>
void normalise_tile(const acc_t<T>* MDPROP_RESTRICT x, Affine<acc_t<T>> affine, int64_t count, T* MDPROP_RESTRICT y) {
  for (int64_t i = 0; i < count; ++i) y[i] = narrow<T>(kRelu ? relu(affine(x[i])) : affine(x[i]));
}

template <typename T>
void forward_planes(const MultiBatchNormForwardArgs<T>& args) {
  const Shape& shape = args.shape;
  for_each_plane(shape, [&](int64_t branch, int64_t channel, int64_t at) {
    if (shape.training) {
      PlaneReader<T> reader(shape, args.x, branch, channel);
      const Moments moments = plane_moments(reader);
      args.mean[at] = static_cast<acc_t<T>>(moments.mean);
      args.var[at] = static_cast<acc_t<T>>(moments.count > 0 ? moments.m2 / moments.count : 0);
    }
    const auto affine = affine_of<T>(shape, args.weight, args.bias, args.mean, args.var, at);
    const auto normalise = shape.relu ? normalise_tile<true, T> : normalise_tile<false, T>;
    Tile<T> tile;
    for_each_plane_tile(shape, branch, channel, [&](int64_t i, int64_t count) {
      normalise(tile.load(args.x + i, count), affine, count, args.y + i);
    });
  });
}

template <bool kRelu, typename T>
void gradient_tile(const acc_t<T>* MDPROP_RESTRICT grad, const acc_t<T>* MDPROP_RESTRICT x, Affine<acc_t<T>> affine,
                   InputGradient<acc_t<T>> formula, int64_t count, T* MDPROP_RESTRICT grad_x) {
  for (int64_t i = 0; i < count; ++i) {
    grad_x[i] = narrow<T>(formula(through_relu<kRelu>(grad[i], x[i], affine), x[i], affine));
  }
}

// Sums of g and of g * (x - mean) over one (branch, channel).
template <bool kRelu, typename T>
void plane_sums(const MultiBatchNormBackwardArgs<T>& args, const Affine<acc_t<T>>& affine, int64_t branch,
                int64_t channel, double* grad_sum, double* product_sum) {
  using Acc = acc_t<T>;
  PlaneReader<T> grads(args.shape, args.grad, branch, channel), inputs(args.shape, args.x, branch, channel);
  for (int64_t run = 0; run < grads.runs(); ++run) {
    int64_t count;
    const Acc* MDPROP_RESTRICT grad = grads.read(run, &count);
    const Acc* MDPROP_RESTRICT x = inputs.read(run, &count);
    const Affine<Acc> local = affine;
    const Pair<Acc> sums = lane_sums<Acc>(count, [=](int64_t i) {
      const Acc g = through_relu<kRelu>(grad[i], x[i], local);
      return Pair<Acc>{g, g * (x[i] - local.mean)};
    });
    *grad_sum += sums.first;
    *product_sum += sums.second;
  }
}

template <typename T>
void backward_planes(const MultiBatchNormBackwardArgs<T>& args) {
  using Acc = acc_t<T>;
  const Shape& shape = args.shape;
  const bool needs_sums = shape.training || args.grad_weight != nullptr;
  for_each_plane(shape, [&](int64_t branch, int64_t channel, int64_t at) {
    const auto affine = affine_of<T>(shape, args.weight, args.bias, args.mean, args.var, at);
    InputGradient<Acc> formula{0, 0};
    if (needs_sums) {
      double grad_sum = 0, product_sum = 0;
      const auto sums = shape.relu ? plane_sums<true, T> : plane_sums<false, T>;
      sums(args, affine, branch, channel, &grad_sum, &product_sum);
      if (args.grad_weight != nullptr) {
        args.grad_weight[at] = static_cast<Acc>(product_sum * inverse_deviation(args.var[at], shape.eps));
        args.grad_bias[at] = static_cast<Acc>(grad_sum);
      }
      const auto count = static_cast<double>(count_of(shape, branch));
      if (shape.training) formula = input_gradient(grad_sum, product_sum, count, args.var[at], shape.eps);
    }
    const auto gradient = shape.relu ? gradient_tile<true, T> : gradient_tile<false, T>;
    Tile<T> grad_tile, x_tile;
    for_each_plane_tile(shape, branch, channel, [&](int64_t i, int64_t count) {
      gradient(grad_tile.load(args.grad + i, count), x_tile.load(args.x + i, count), affine, formula, count,
               args.grad_x + i);
    });
  });
}

}  // namespace
}  // namespace mdprop::MDPROP_ISA
