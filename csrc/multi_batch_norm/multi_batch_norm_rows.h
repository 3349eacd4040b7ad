// multi_batch_norm on [N, S, C]: tasks are blocks of rows; the statistics of a block are kept for all channels and
// merged afterwards in the order of the blocks.
#pragma once

#include "common/pack.h"
#include "common/scratch.h"
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
    result.branch = branch_of(block);
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
  // The last branch that starts at or before the block: empty ones share their start with the next.
  int64_t branch_of(int64_t block) const {
    int64_t low = 0, high = shape_.branches;
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      (starts_[middle] <= block ? low : high) = middle;
    }
    return low;
  }

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

// Calls store(moments, branch, channel) for every (branch, channel), in parallel.
template <typename T, typename Store>
void row_moments(const Shape& shape, const T* x, const RowBlocks& blocks, const Store& store) {
  const int64_t channels = shape.channels;
  Scratch<double> means(blocks.total() * channels), m2s(blocks.total() * channels);
  for_each_block(shape, blocks, [&](const RowBlock& block, int64_t number) {
    block_moments(shape, block, x, means.data() + number * channels, m2s.data() + number * channels);
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
                   store(total, branch, channel);
                 }
               });
}

template <typename T>
void row_statistics(const MultiBatchNormStatisticsArgs<T>& args) {
  row_moments(args.shape, args.x, RowBlocks(args.shape), [&](const Moments& moments, int64_t branch, int64_t channel) {
    store_moments(args, moments, branch, channel);
  });
}

// Affine parameters of every channel of every branch as arrays [B, C], for loops over channels.
template <typename Acc>
struct AffineRows {
  template <typename Args>
  explicit AffineRows(const Args& args)
      : means(args.mean),
        scales(args.shape.branches * args.shape.channels),
        biases(args.shape.branches * args.shape.channels) {
    for (int64_t at = 0; at < scales.size(); ++at) {
      const Affine<Acc> affine = affine_of(args, at);
      scales[at] = affine.scale;
      biases[at] = affine.bias;
    }
  }

  const Acc* means;
  Scratch<Acc> scales, biases;
};

// Calls body(row of x, its offset in the mask) for the rows of a block.
template <typename Body>
void for_each_row(const Shape& shape, const RowBlock& block, const Body& body) {
  for (int64_t row = 0; row < block.count; ++row) {
    body(block.offsets[row], block.offsets[row] / shape.channels * mask_bytes_per_line(shape));
  }
}

template <bool kRelu, bool kResidual, typename T>
void normalise_row(const acc_t<T>* MDPROP_RESTRICT x, const acc_t<T>* MDPROP_RESTRICT residual,
                   const acc_t<T>* MDPROP_RESTRICT mean, const acc_t<T>* MDPROP_RESTRICT scale,
                   const acc_t<T>* MDPROP_RESTRICT bias, int64_t count, T* MDPROP_RESTRICT y) {
  for (int64_t c = 0; c < count; ++c) {
    acc_t<T> value = (x[c] - mean[c]) * scale[c] + bias[c];
    if (kResidual) value += residual[c];
    y[c] = narrow<T>(kRelu ? relu(value) : value);
  }
}

template <bool kRelu, bool kResidual, typename T>
void normalise_rows(const MultiBatchNormForwardArgs<T>& args, const RowBlocks& blocks,
                    const AffineRows<acc_t<T>>& affine) {
  const Shape& shape = args.shape;
  for_each_block(shape, blocks, [&](const RowBlock& block, int64_t) {
    Tile<T> x_tile, residual_tile;
    for_each_row(shape, block, [&](int64_t start, int64_t byte) {
      for_each_tile(0, shape.channels, [&](int64_t c, int64_t count) {
        const int64_t at = block.branch * shape.channels + c, i = start + c;
        const acc_t<T>* residual = kResidual ? residual_tile.load(args.residual + i, count) : nullptr;
        normalise_row<kRelu, kResidual>(x_tile.load(args.x + i, count), residual, affine.means + at,
                                        affine.scales.data() + at, affine.biases.data() + at, count, args.y + i);
        if (args.mask != nullptr) mark_positive(args.y + i, count, args.mask + byte + c / 8);
      });
    });
  });
}

template <typename T>
void forward_rows(const MultiBatchNormForwardArgs<T>& args) {
  const Shape& shape = args.shape;
  const RowBlocks blocks(shape);
  if (shape.training) {
    row_moments(shape, args.x, blocks, [&](const Moments& moments, int64_t branch, int64_t channel) {
      store_statistics(args, moments, branch * shape.channels + channel);
    });
  }
  const AffineRows<acc_t<T>> affine(args);
  with_flags(shape.relu, args.residual != nullptr,
             [&](auto relu, auto residual) { normalise_rows<relu(), residual()>(args, blocks, affine); });
}

}  // namespace
}  // namespace mdprop::MDPROP_ISA
