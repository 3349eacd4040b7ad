// The backward pass of multi_batch_norm on [N, S, C]; multi_batch_norm_rows.h cuts it into blocks of rows.
#pragma once

#include "multi_batch_norm/multi_batch_norm_rows.h"

namespace mdprop::MDPROP_ISA {
namespace {

// Per channel of a block: sums of g and of g * (x - mean), in fp64: [C] each.
template <Cut kCut, typename T>
void block_sums(const MultiBatchNormBackwardArgs<T>& args, const RowBlock& block, const AffineRows<acc_t<T>>& affine,
                double* grad_sums, double* product_sums) {
  using Acc = acc_t<T>;
  const int64_t channels = args.shape.channels;
  for_each_pack<Acc>(channels, [&](int64_t channel, auto pack) {
    using P = decltype(pack);
    const int64_t at = block.branch * channels + channel;
    const Affine<P> formula{P::load(affine.means + at), P::load(affine.scales.data() + at),
                            P::load(affine.biases.data() + at)};
    P sum = P::broadcast(0), product = sum;
    GradientTile<kCut == Cut::kMask, T> grad_tile;
    Tile<T> x_tile;
    for_each_row(args.shape, block, [&](int64_t start, int64_t byte) {
      const int64_t i = start + channel;
      const P x = P::load(x_tile.load(args.x + i, P::kWidth));
      const uint8_t* bits = kCut == Cut::kMask ? args.mask + byte : nullptr;
      P grad = P::load(grad_tile.load(args.grad + i, P::kWidth, bits, channel));
      if constexpr (kCut == Cut::kRecomputed) grad = where_positive(formula(x), grad);
      sum = sum + grad;
      product = product + grad * (x - formula.mean);
    });
    Acc sums[P::kWidth], products[P::kWidth];
    sum.store(sums);
    product.store(products);
    std::copy(sums, sums + P::kWidth, grad_sums + channel);
    std::copy(products, products + P::kWidth, product_sums + channel);
  });
}

// Calls body(branch, channel) for every pair.
template <typename Body>
void for_each_pair(const Shape& shape, const Body& body) {
  for (int64_t at = 0; at < shape.branches * shape.channels; ++at) body(at / shape.channels, at % shape.channels);
}

// Calls use(sums, branch, channel) with the sums over every (branch, channel).
template <Cut kCut, typename T, typename Use>
void row_gradient_sums(const MultiBatchNormBackwardArgs<T>& args, const RowBlocks& blocks,
                       const AffineRows<acc_t<T>>& affine, const Use& use) {
  const int64_t channels = args.shape.channels;
  Scratch<double> grad_sums(blocks.total() * channels), product_sums(blocks.total() * channels);
  for_each_block(args.shape, blocks, [&](const RowBlock& block, int64_t number) {
    block_sums<kCut>(args, block, affine, grad_sums.data() + number * channels,
                     product_sums.data() + number * channels);
  });
  for_each_pair(args.shape, [&](int64_t branch, int64_t channel) {
    GradientSums total{static_cast<double>(count_of(args.shape, branch))};
    for (int64_t block = blocks.first_of(branch); block < blocks.first_of(branch + 1); ++block) {
      total.grad += grad_sums[block * channels + channel];
      total.product += product_sums[block * channels + channel];
    }
    use(total, branch, channel);
  });
}

template <Cut kCut, bool kTraining, typename T>
void gradient_rows(const MultiBatchNormBackwardArgs<T>& args, const RowBlocks& blocks,
                   const AffineRows<acc_t<T>>& affine, const acc_t<T>* centres, const acc_t<T>* slopes) {
  using Acc = acc_t<T>;
  const int64_t channels = args.shape.channels;
  for_each_block(args.shape, blocks, [&](const RowBlock& block, int64_t) {
    GradientTile<kCut == Cut::kMask, T> grad_tile;
    Tile<T> x_tile;
    for_each_row(args.shape, block, [&](int64_t start, int64_t byte) {
      for_each_tile(0, channels, [&](int64_t slab, int64_t count) {
        const int64_t at = block.branch * channels + slab;
        const uint8_t* bits = kCut == Cut::kMask ? args.mask + byte : nullptr;
        const Acc* MDPROP_RESTRICT grad = grad_tile.load(args.grad + start + slab, count, bits, slab);
        constexpr bool kReadsX = kTraining || kCut == Cut::kRecomputed;
        const Acc* MDPROP_RESTRICT x = kReadsX ? x_tile.load(args.x + start + slab, count) : nullptr;
        const Acc* MDPROP_RESTRICT mean = affine.means + at;
        const Acc* MDPROP_RESTRICT scale = affine.scales.data() + at;
        const Acc* MDPROP_RESTRICT bias = affine.biases.data() + at;
        [[maybe_unused]] const Acc* MDPROP_RESTRICT centre = centres + at;
        [[maybe_unused]] const Acc* MDPROP_RESTRICT slope = slopes + at;
        T* MDPROP_RESTRICT out = args.grad_x + start + slab;
        for (int64_t c = 0; c < count; ++c) {
          const Affine<Acc> local{mean[c], scale[c], bias[c]};
          Acc g = grad[c];
          if constexpr (kCut == Cut::kRecomputed) g = through_relu<true>(g, x[c], local);
          if constexpr (kTraining) {
            const InputGradient<Acc> formula{centre[c], slope[c]};
            out[c] = narrow<T>(formula(g, x[c], local));
          } else {
            out[c] = narrow<T>(local.scale * g);
          }
        }
        if (kCut == Cut::kMask && args.grad_residual != nullptr) {
          narrow_tile(grad, args.grad_residual + start + slab, count);
        }
      });
    });
  });
}

template <typename T>
void backward_rows(const MultiBatchNormBackwardArgs<T>& args) {
  using Acc = acc_t<T>;
  const Shape& shape = args.shape;
  const RowBlocks blocks(shape);
  const AffineRows<Acc> affine(args);
  Scratch<Acc> centres(shape.branches * shape.channels), slopes(shape.branches * shape.channels);
  const auto use = [&](const GradientSums& sums, int64_t branch, int64_t channel) {
    const auto formula = use_sums(args, sums, branch, channel);
    centres[branch * shape.channels + channel] = formula.centre;
    slopes[branch * shape.channels + channel] = formula.slope;
  };
  with_cut(args, [&](auto cut, auto training) {
    if (needs_own_sums(args)) {
      row_gradient_sums<cut()>(args, blocks, affine, use);
    } else {
      for_each_pair(shape, [&](int64_t branch, int64_t channel) { use({}, branch, channel); });
    }
    if (args.grad_x != nullptr) gradient_rows<cut(), training()>(args, blocks, affine, centres.data(), slopes.data());
  });
}

}  // namespace
}  // namespace mdprop::MDPROP_ISA
