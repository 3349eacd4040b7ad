// multi_batch_norm on [N, S, C]: tasks are blocks of rows; the statistics of a block are kept for all channels and
// merged afterwards in the order of the blocks.
#pragma once

#include "common/pack.h"
#include "common/scratch.h"
#include "common/welford.h"
#include "multi_batch_norm/multi_batch_norm_cpu.h"

namespace mdprop::MDPROP_ISA {
namespace {

constexpr int64_t kLeafRows = 32;
constexpr int64_t kBlockRows = 128;

// A block of up to kBlockRows rows of one branch.
struct RowBlock {
  int64_t branch;
  int64_t count;
  int64_t offsets[kBlockRows];  // of each row in x
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
  int64_t total() const { return starts_[shape_.branches]; }
  int64_t first_of(int64_t branch) const { return starts_[branch]; }
  int64_t rows_of(int64_t branch, int64_t block) const {
    return std::min(kBlockRows, count_of(shape_, branch) - (block - starts_[branch]) * kBlockRows);
  }

  RowBlock operator()(int64_t block) const {
    RowBlock result;
    result.branch = 0;
    while (starts_[result.branch + 1] <= block) ++result.branch;
    result.count = rows_of(result.branch, block);
    const int64_t first = (block - starts_[result.branch]) * kBlockRows;  // counts the rows of the branch
    int64_t member = shape_.offsets[result.branch] + first / shape_.spatial, row_of_sample = first % shape_.spatial;
    for (int64_t row = 0; row < result.count; ++row) {
      result.offsets[row] = (shape_.order[member] * shape_.spatial + row_of_sample) * shape_.channels;
      if (++row_of_sample == shape_.spatial) {
        row_of_sample = 0;
        ++member;
      }
    }
    return result;
  }

 private:
  const Shape& shape_;
  Scratch<int64_t> starts_;
};

// Calls body(RowBlock, its number) for every block, in parallel.
template <typename Body>
void for_each_block(const Shape& shape, const RowBlocks& blocks, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, kValuesPerTask / (kBlockRows * shape.channels));
  parallel_for(blocks.total(), grain, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) body(blocks(block), block);
  });
}

// Adds the rows [begin, end) of a block to the mean and the sum of squared deviations of a pack of channels, by Chan's
// rule as in common/welford.h. The rows before `begin` are in `means` and `m2s` already.
template <typename P, typename T>
void add_leaf(const RowBlock& block, int64_t begin, int64_t end, const T* data, double* means, double* m2s) {
  using Acc = acc_t<T>;
  Tile<T> tile;
  const auto row_values = [&](int64_t row) { return P::load(tile.load(data + block.offsets[row], P::kWidth)); };
  const auto rows = static_cast<double>(end - begin);
  P sum = P::broadcast(0), rest = sum, square = sum;
  for (int64_t row = begin; row < end; ++row) sum = sum + row_values(row);
  const P centre = sum * P::broadcast(Acc(1) / static_cast<Acc>(end - begin));
  for (int64_t row = begin; row < end; ++row) {
    const P deviation = row_values(row) - centre;
    rest = rest + deviation;
    square = square + deviation * deviation;
  }
  Acc centres[P::kWidth], rests[P::kWidth], squares[P::kWidth];
  centre.store(centres);
  rest.store(rests);
  square.store(squares);
  const auto before = static_cast<double>(begin);
  const double share = rows / (before + rows), cross = before * share;
  for (int64_t c = 0; c < P::kWidth; ++c) {
    const double correction = static_cast<double>(rests[c]) / rows;  // what rounding took from the centre
    const double delta = centres[c] + correction - means[c];
    means[c] += delta * share;
    m2s[c] += squares[c] - correction * correction * rows + delta * delta * cross;
  }
}

// Mean and sum of squared deviations of each channel of a block, in fp64: means, m2s [C].
template <typename T>
void block_moments(const Shape& shape, const RowBlock& block, const T* data, double* means, double* m2s) {
  std::fill(means, means + shape.channels, 0.0);
  std::fill(m2s, m2s + shape.channels, 0.0);
  for (int64_t begin = 0; begin < block.count; begin += kLeafRows) {
    for_each_pack<acc_t<T>>(shape.channels, [&](int64_t c, auto pack) {
      const int64_t end = std::min(begin + kLeafRows, block.count);
      add_leaf<decltype(pack)>(block, begin, end, data + c, means + c, m2s + c);
    });
  }
}

template <typename T>
void row_statistics(const MultiBatchNormForwardArgs<T>& args, const RowBlocks& blocks) {
  const Shape& shape = args.shape;
  const int64_t channels = shape.channels;
  Scratch<double> means(blocks.total() * channels), m2s(blocks.total() * channels);
  for_each_block(shape, blocks, [&](const RowBlock& block, int64_t number) {
    block_moments(shape, block, args.x, means.data() + number * channels, m2s.data() + number * channels);
  });
  const int64_t per_pair = std::max<int64_t>(1, blocks.total() / shape.branches);
  parallel_for(shape.branches * channels, std::max<int64_t>(1, kValuesPerTask / per_pair),
               [&](int64_t first, int64_t last) {
                 for (int64_t at = first; at < last; ++at) {
                   const int64_t branch = at / channels, channel = at % channels;
                   Moments total;
                   for (int64_t block = blocks.first_of(branch); block < blocks.first_of(branch + 1); ++block) {
                     merge(total, {static_cast<double>(blocks.rows_of(branch, block)),
                                   means[block * channels + channel], m2s[block * channels + channel]});
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
      const int64_t start = block.offsets[row];
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
void block_sums(const MultiBatchNormBackwardArgs<T>& args, const RowBlock& block, const AffineRows<T>& affine,
                double* grad_sums, double* product_sums) {
  using Acc = acc_t<T>;
  const int64_t channels = args.shape.channels;
  for_each_pack<Acc>(channels, [&](int64_t channel, auto pack) {
    using P = decltype(pack);
    const int64_t at = block.branch * channels + channel;
    const Affine<P> formula{P::load(affine.means + at), P::load(affine.scales.data() + at),
                            P::load(affine.biases.data() + at)};
    P sum = P::broadcast(0), product = sum;
    Tile<T> grad_tile, x_tile;
    for (int64_t row = 0; row < block.count; ++row) {
      const int64_t start = block.offsets[row] + channel;
      const P x = P::load(x_tile.load(args.x + start, P::kWidth));
      P grad = P::load(grad_tile.load(args.grad + start, P::kWidth));
      if constexpr (kRelu) grad = where_positive(formula(x), grad);
      sum = sum + grad;
      product = product + grad * (x - formula.mean);
    }
    Acc sums[P::kWidth], products[P::kWidth];
    sum.store(sums);
    product.store(products);
    std::copy(sums, sums + P::kWidth, grad_sums + channel);
    std::copy(products, products + P::kWidth, product_sums + channel);
  });
}

// Sums over each (branch, channel), their gradients of the affine parameters, and the input gradient's coefficients.
template <typename T>
void row_gradient_sums(const MultiBatchNormBackwardArgs<T>& args, const RowBlocks& blocks, const AffineRows<T>& affine,
                       acc_t<T>* centres, acc_t<T>* slopes) {
  using Acc = acc_t<T>;
  const Shape& shape = args.shape;
  const int64_t channels = shape.channels;
  Scratch<double> grad_sums(blocks.total() * channels), product_sums(blocks.total() * channels);
  const auto sum_block = shape.relu ? block_sums<true, T> : block_sums<false, T>;
  for_each_block(shape, blocks, [&](const RowBlock& block, int64_t number) {
    sum_block(args, block, affine, grad_sums.data() + number * channels, product_sums.data() + number * channels);
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
void gradient_rows(const MultiBatchNormBackwardArgs<T>& args, const RowBlocks& blocks, const AffineRows<T>& affine,
                   const acc_t<T>* centres, const acc_t<T>* slopes) {
  using Acc = acc_t<T>;
  const int64_t channels = args.shape.channels;
  for_each_block(args.shape, blocks, [&](const RowBlock& block, int64_t) {
    Tile<T> grad_tile, x_tile;
    for (int64_t row = 0; row < block.count; ++row) {
      const int64_t start = block.offsets[row];
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
}  // namespace mdprop::MDPROP_ISA
