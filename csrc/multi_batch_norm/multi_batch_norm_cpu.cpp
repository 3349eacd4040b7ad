// multi_batch_norm on the CPU, for two layouts.
//
// Planes ([N, C, S]): one task a (branch, channel). Its values fit the second-level cache for most layers, so that the
// statistics read memory and the normalisation reads cache.
// Rows ([N, S, C]): tasks are blocks of rows; statistics of a block are kept for all channels and merged afterwards.
//
// Statistics are exact two-pass sums over leaves that stay in the first-level cache, merged in fp64 by Chan's rule in the
// order of the samples: the same bits for every number of threads and every instruction set. The lanes of a sum are
// therefore a fixed number of array elements, which the compiler turns into registers of any width.
#include "multi_batch_norm/multi_batch_norm.h"

#include <algorithm>

#include "common/parallel.h"
#include "common/scratch.h"
#include "common/tile.h"
#include "common/welford.h"
#include "multi_batch_norm/multi_batch_norm_math.h"

namespace mdprop::MDPROP_ISA {
namespace {

using Shape = MultiBatchNormShape;

constexpr int64_t kLanes = 32;
constexpr int64_t kValuesPerTask = 1 << 14;  // below this much work a second thread does not pay

template <typename T>
Affine<acc_t<T>> affine_of(const Shape& shape, const acc_t<T>* weight, const acc_t<T>* bias, const acc_t<T>* mean,
                           const acc_t<T>* var, int64_t at) {
  using Acc = acc_t<T>;
  const Acc inverse = inverse_deviation(var[at], shape.eps);
  return {mean[at], weight == nullptr ? inverse : weight[at] * inverse, bias == nullptr ? Acc(0) : bias[at]};
}

int64_t count_of(const Shape& shape, int64_t branch) {
  return (shape.offsets[branch + 1] - shape.offsets[branch]) * shape.spatial;
}

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

// --- planes: [N, C, S] ---------------------------------------------------------------------------------------------

// The values of one (branch, channel) as a sequence of runs of up to kTile values. Short planes of several samples are
// gathered into one run, so that sums keep their lanes full at 7x7.
template <typename T>
class PlaneReader {
 public:
  using Acc = acc_t<T>;

  PlaneReader(const Shape& shape, const T* data, int64_t branch, int64_t channel)
      : shape_(shape), data_(data + channel * shape.spatial), first_(shape.offsets[branch]),
        last_(shape.offsets[branch + 1]), samples_per_run_(std::max<int64_t>(1, kTile / shape.spatial)) {}

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
    const Acc centre = lane_sums<Acc>(count, [=](int64_t i) { return Pair<Acc>{x[i], 0}; }).first / static_cast<Acc>(count);
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

// --- rows: [N, S, C] -----------------------------------------------------------------------------------------------

constexpr int64_t kLeafRows = 32;
constexpr int64_t kBlockRows = 128;
constexpr int64_t kSlab = 128;  // channels: kLeafRows * kSlab fp32 values are 16 KB

// A block of up to kBlockRows rows of one branch.
struct RowBlock {
  int64_t branch;
  int64_t first;  // rows count from the first row of the branch, in branch order
  int64_t count;
};

// Cuts the rows of every branch into blocks, in order.
class RowBlocks {
 public:
  explicit RowBlocks(const Shape& shape) : shape_(shape), starts_(shape.branches + 1) {
    starts_[0] = 0;
    for (int64_t b = 0; b < shape.branches; ++b) {
      starts_[b + 1] = starts_[b] + (count_of(shape, b) + kBlockRows - 1) / kBlockRows;
    }
  }
  int64_t total() { return starts_[shape_.branches]; }
  int64_t first_of(int64_t branch) { return starts_[branch]; }
  RowBlock operator()(int64_t block) {
    int64_t branch = 0;
    while (starts_[branch + 1] <= block) ++branch;
    const int64_t first = (block - starts_[branch]) * kBlockRows;
    return {branch, first, std::min(kBlockRows, count_of(shape_, branch) - first)};
  }
  // Offset in x of a row of a branch.
  int64_t offset(int64_t branch, int64_t row) const {
    const int64_t sample = shape_.order[shape_.offsets[branch] + row / shape_.spatial];
    return (sample * shape_.spatial + row % shape_.spatial) * shape_.channels;
  }

 private:
  const Shape& shape_;
  Scratch<int64_t> starts_;
};

// Calls body(RowBlock, its number) for every block, in parallel.
template <typename Body>
void for_each_block(const Shape& shape, RowBlocks& blocks, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, kValuesPerTask / (kBlockRows * shape.channels));
  parallel_for(blocks.total(), grain, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) body(blocks(block), block);
  });
}

// Mean and sum of squared deviations of each channel of a block, in fp64: means, m2s [C].
template <typename T>
void block_moments(const Shape& shape, const RowBlocks& blocks, const RowBlock& block, const T* data,
                   double* MDPROP_RESTRICT means, double* MDPROP_RESTRICT m2s) {
  using Acc = acc_t<T>;
  alignas(64) Acc sums[kSlab], centres[kSlab], squares[kSlab];
  Tile<T> tile;
  std::fill(means, means + shape.channels, 0.0);
  std::fill(m2s, m2s + shape.channels, 0.0);
  for (int64_t leaf = 0; leaf < block.count; leaf += kLeafRows) {
    const int64_t rows = std::min(kLeafRows, block.count - leaf);
    const double before = static_cast<double>(leaf), share = rows / (before + rows), cross = before * share;
    for (int64_t slab = 0; slab < shape.channels; slab += kSlab) {
      const int64_t width = std::min(kSlab, shape.channels - slab);
      std::fill(sums, sums + width, Acc(0));
      std::fill(squares, squares + width, Acc(0));
      const auto for_each_row = [&](const auto& body) {
        for (int64_t row = 0; row < rows; ++row) {
          body(tile.load(data + blocks.offset(block.branch, block.first + leaf + row) + slab, width));
        }
      };
      for_each_row([&](const Acc* MDPROP_RESTRICT x) {
        for (int64_t c = 0; c < width; ++c) sums[c] += x[c];
      });
      for (int64_t c = 0; c < width; ++c) {
        centres[c] = sums[c] / static_cast<Acc>(rows);
        sums[c] = 0;
      }
      for_each_row([&](const Acc* MDPROP_RESTRICT x) {
        for (int64_t c = 0; c < width; ++c) {
          const Acc deviation = x[c] - centres[c];
          sums[c] += deviation;
          squares[c] += deviation * deviation;
        }
      });
      for (int64_t c = 0; c < width; ++c) {  // Chan's rule, as in common/welford.h, for a whole slab
        const double rest = static_cast<double>(sums[c]) / rows;
        const double delta = centres[c] + rest - means[slab + c];
        means[slab + c] += delta * share;
        m2s[slab + c] += squares[c] - rest * rest * rows + delta * delta * cross;
      }
    }
  }
}

template <typename T>
void row_statistics(const MultiBatchNormForwardArgs<T>& args, RowBlocks& blocks) {
  const Shape& shape = args.shape;
  const int64_t channels = shape.channels;
  Scratch<double> means(blocks.total() * channels), m2s(blocks.total() * channels);
  for_each_block(shape, blocks, [&](const RowBlock& block, int64_t number) {
    block_moments(shape, blocks, block, args.x, means.data() + number * channels, m2s.data() + number * channels);
  });
  const int64_t per_pair = std::max<int64_t>(1, blocks.total() / shape.branches);
  parallel_for(shape.branches * channels, std::max<int64_t>(1, kValuesPerTask / per_pair), [&](int64_t first, int64_t last) {
    for (int64_t at = first; at < last; ++at) {
      const int64_t branch = at / channels, channel = at % channels;
      Moments total;
      for (int64_t block = blocks.first_of(branch); block < blocks.first_of(branch + 1); ++block) {
        merge(total, {static_cast<double>(blocks(block).count), means[block * channels + channel],
                      m2s[block * channels + channel]});
      }
      args.mean[at] = static_cast<acc_t<T>>(total.mean);
      args.var[at] = static_cast<acc_t<T>>(total.count > 0 ? total.m2 / total.count : 0);
    }
  });
}

// Affine parameters of every channel of every branch as arrays [B, C], for loops over channels.
template <typename T>
struct AffineRows {
  using Acc = acc_t<T>;
  AffineRows(const Shape& shape, const Acc* weight, const Acc* bias, const Acc* mean, const Acc* var)
      : means(mean), scales(shape.branches * shape.channels), biases(shape.branches * shape.channels) {
    for (int64_t at = 0; at < shape.branches * shape.channels; ++at) {
      const auto affine = affine_of<T>(shape, weight, bias, mean, var, at);
      scales[at] = affine.scale;
      biases[at] = affine.bias;
    }
  }
  Affine<Acc> operator()(int64_t at) const { return {means[at], scales[at], biases[at]}; }

  const Acc* means;
  Scratch<Acc> scales, biases;
};

template <bool kRelu, typename T>
void normalise_row(const acc_t<T>* MDPROP_RESTRICT x, const acc_t<T>* MDPROP_RESTRICT mean,
                   const acc_t<T>* MDPROP_RESTRICT scale, const acc_t<T>* MDPROP_RESTRICT bias, int64_t count,
                   T* MDPROP_RESTRICT y) {
  for (int64_t c = 0; c < count; ++c) {
    const acc_t<T> value = (x[c] - mean[c]) * scale[c] + bias[c];
    y[c] = narrow<T>(kRelu ? relu(value) : value);
  }
}

template <typename T>
void forward_rows(const MultiBatchNormForwardArgs<T>& args) {
  const Shape& shape = args.shape;
  RowBlocks blocks(shape);
  if (shape.training) row_statistics(args, blocks);
  AffineRows<T> affine(shape, args.weight, args.bias, args.mean, args.var);
  const auto normalise = shape.relu ? normalise_row<true, T> : normalise_row<false, T>;
  for_each_block(shape, blocks, [&](const RowBlock& block, int64_t) {
    Tile<T> tile;
    for (int64_t row = 0; row < block.count; ++row) {
      const int64_t start = blocks.offset(block.branch, block.first + row);
      for_each_tile(0, shape.channels, [&](int64_t c, int64_t count) {
        const int64_t at = block.branch * shape.channels + c;
        normalise(tile.load(args.x + start + c, count), affine.means + at, affine.scales.data() + at,
                  affine.biases.data() + at, count, args.y + start + c);
      });
    }
  });
}

// Per channel of a block: sums of g and of g * (x - mean), in fp64: [C] each.
template <bool kRelu, typename T>
void block_sums(const MultiBatchNormBackwardArgs<T>& args, const RowBlocks& blocks, const RowBlock& block,
                const AffineRows<T>& affine, double* MDPROP_RESTRICT grad_sums, double* MDPROP_RESTRICT product_sums) {
  using Acc = acc_t<T>;
  const int64_t channels = args.shape.channels;
  alignas(64) Acc sums[kSlab], products[kSlab];
  Tile<T> grad_tile, x_tile;
  for (int64_t slab = 0; slab < channels; slab += kSlab) {
    const int64_t width = std::min(kSlab, channels - slab), at = block.branch * channels + slab;
    const Acc* MDPROP_RESTRICT mean = affine.means + at;
    const Acc* MDPROP_RESTRICT scale = affine.scales.data() + at;
    const Acc* MDPROP_RESTRICT bias = affine.biases.data() + at;
    std::fill(sums, sums + width, Acc(0));
    std::fill(products, products + width, Acc(0));
    for (int64_t row = 0; row < block.count; ++row) {
      const int64_t start = blocks.offset(block.branch, block.first + row) + slab;
      const Acc* MDPROP_RESTRICT grad = grad_tile.load(args.grad + start, width);
      const Acc* MDPROP_RESTRICT x = x_tile.load(args.x + start, width);
      for (int64_t c = 0; c < width; ++c) {
        const Acc g = through_relu<kRelu>(grad[c], x[c], Affine<Acc>{mean[c], scale[c], bias[c]});
        sums[c] += g;
        products[c] += g * (x[c] - mean[c]);
      }
    }
    for (int64_t c = 0; c < width; ++c) {
      grad_sums[slab + c] = sums[c];
      product_sums[slab + c] = products[c];
    }
  }
}

// Sums over each (branch, channel), their gradients of the affine parameters, and the input gradient's coefficients.
template <typename T>
void row_gradient_sums(const MultiBatchNormBackwardArgs<T>& args, RowBlocks& blocks, const AffineRows<T>& affine,
                       acc_t<T>* centres, acc_t<T>* slopes) {
  using Acc = acc_t<T>;
  const Shape& shape = args.shape;
  const int64_t channels = shape.channels;
  Scratch<double> grad_sums(blocks.total() * channels), product_sums(blocks.total() * channels);
  const auto sum_block = shape.relu ? block_sums<true, T> : block_sums<false, T>;
  for_each_block(shape, blocks, [&](const RowBlock& block, int64_t number) {
    sum_block(args, blocks, block, affine, grad_sums.data() + number * channels,
              product_sums.data() + number * channels);
  });
  for (int64_t at = 0; at < shape.branches * channels; ++at) {
    const int64_t branch = at / channels, channel = at % channels;
    double grad_sum = 0, product_sum = 0;
    for (int64_t block = blocks.first_of(branch); block < blocks.first_of(branch + 1); ++block) {
      grad_sum += grad_sums[block * channels + channel];
      product_sum += product_sums[block * channels + channel];
    }
    if (args.grad_weight != nullptr) {
      args.grad_weight[at] = static_cast<Acc>(product_sum * inverse_deviation(args.var[at], shape.eps));
      args.grad_bias[at] = static_cast<Acc>(grad_sum);
    }
    if (!shape.training) continue;
    const auto count = static_cast<double>(count_of(shape, branch));
    const auto formula = input_gradient(grad_sum, product_sum, count, args.var[at], shape.eps);
    centres[at] = formula.centre;
    slopes[at] = formula.slope;
  }
}

template <bool kRelu, typename T>
void gradient_rows(const MultiBatchNormBackwardArgs<T>& args, RowBlocks& blocks, const AffineRows<T>& affine,
                   const acc_t<T>* centres, const acc_t<T>* slopes) {
  using Acc = acc_t<T>;
  const int64_t channels = args.shape.channels;
  for_each_block(args.shape, blocks, [&](const RowBlock& block, int64_t) {
    Tile<T> grad_tile, x_tile;
    for (int64_t row = 0; row < block.count; ++row) {
      const int64_t start = blocks.offset(block.branch, block.first + row);
      for_each_tile(0, channels, [&](int64_t slab, int64_t count) {
        const int64_t at = block.branch * channels + slab;
        const Acc* MDPROP_RESTRICT grad = grad_tile.load(args.grad + start + slab, count);
        const Acc* MDPROP_RESTRICT x = x_tile.load(args.x + start + slab, count);
        const Acc* MDPROP_RESTRICT mean = affine.means + at;
        const Acc* MDPROP_RESTRICT scale = affine.scales.data() + at;
        const Acc* MDPROP_RESTRICT bias = affine.biases.data() + at;
        const Acc* MDPROP_RESTRICT centre = centres + at;
        const Acc* MDPROP_RESTRICT slope = slopes + at;
        T* MDPROP_RESTRICT out = args.grad_x + start + slab;
        for (int64_t c = 0; c < count; ++c) {
          const Affine<Acc> local{mean[c], scale[c], bias[c]};
          const InputGradient<Acc> formula{centre[c], slope[c]};
          out[c] = narrow<T>(formula(through_relu<kRelu>(grad[c], x[c], local), x[c], local));
        }
      });
    }
  });
}

template <typename T>
void backward_rows(const MultiBatchNormBackwardArgs<T>& args) {
  using Acc = acc_t<T>;
  const Shape& shape = args.shape;
  RowBlocks blocks(shape);
  const AffineRows<T> affine(shape, args.weight, args.bias, args.mean, args.var);
  Scratch<Acc> centres(shape.branches * shape.channels), slopes(shape.branches * shape.channels);
  std::fill(centres.data(), centres.data() + centres.size(), Acc(0));
  std::fill(slopes.data(), slopes.data() + slopes.size(), Acc(0));
  if (shape.training || args.grad_weight != nullptr) {
    row_gradient_sums(args, blocks, affine, centres.data(), slopes.data());
  }
  const auto gradient = shape.relu ? gradient_rows<true, T> : gradient_rows<false, T>;
  gradient(args, blocks, affine, centres.data(), slopes.data());
}

}  // namespace

// A single value a plane is a row of channels: the vectors then run over channels.
static bool reads_rows(const MultiBatchNormShape& shape) { return shape.channels_last || shape.spatial == 1; }

template <typename T>
void multi_batch_norm_forward(const MultiBatchNormForwardArgs<T>& args) {
  reads_rows(args.shape) ? forward_rows(args) : forward_planes(args);
}

template <typename T>
void multi_batch_norm_backward(const MultiBatchNormBackwardArgs<T>& args) {
  reads_rows(args.shape) ? backward_rows(args) : backward_planes(args);
}

#define MDPROP_INSTANTIATE(T)                                                         \
  template void multi_batch_norm_forward<T>(const MultiBatchNormForwardArgs<T>&); \
  template void multi_batch_norm_backward<T>(const MultiBatchNormBackwardArgs<T>&);
MDPROP_INSTANTIATE(float)
MDPROP_INSTANTIATE(double)
MDPROP_INSTANTIATE(BFloat16)
MDPROP_INSTANTIATE(Half)

}  // namespace mdprop::MDPROP_ISA
