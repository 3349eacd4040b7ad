// random_start on the CPU: the noise of a tile at a time, 32 counters abreast so that the loops vectorise. l2 and l1
// draw it twice, once for its length and once for the result, which is cheaper than keeping it.
#include "pgd_step/pgd_step.h"

#include <algorithm>

#include "common/parallel.h"
#include "common/tile.h"
#include "pgd_step/pgd_step_tiles.h"
#include "pgd_step/random_start_math.h"

namespace mdprop::MDPROP_ISA {
namespace {

// The noise of `count` <= kTile values from value i on, a multiple of kWords; 0 beyond them.
template <PgdNorm kNorm, typename T>
void fill_noise(const RandomStartArgs<T>& args, int64_t sample, int64_t i, int64_t count, float (&noise)[kTile]) {
  const uint32_t first = static_cast<uint32_t>(i / kWords);
  for (int64_t begin = 0; begin < count; begin += kLanes * kWords) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const uint32_t block = first + static_cast<uint32_t>(begin / kWords + lane);
      float values[kWords];
      noise_of<kNorm>(philox_block(args.seed, args.offset, sample, block), values);
      for (int w = 0; w < kWords; ++w) noise[begin + lane * kWords + w] = values[w];
    }
  }
  std::fill(noise + count, noise + kTile, 0.0f);
}

// Sum of the noise's weights over a sample. The order is that of a warp which owns a tile: lane l adds up the blocks l,
// l + 32, ..., then the lanes are added pairwise; tiles are added in the same way.
template <PgdNorm kNorm, typename T>
double noise_sum(const RandomStartArgs<T>& args, int64_t sample) {
  const int64_t size = args.sample_size, tiles = (size + kTile - 1) / kTile;
  Scratch<double> sums(tiles);
  parallel_for(tiles, kTilesPerTask, [&](int64_t first, int64_t last) {
    float noise[kTile];
    for (int64_t tile = first; tile < last; ++tile) {
      fill_noise<kNorm>(args, sample, tile * kTile, std::min(kTile, size - tile * kTile), noise);
      double lanes[kLanes] = {};
      for (int64_t begin = 0; begin < kTile; begin += kLanes * kWords) {
        for (int w = 0; w < kWords; ++w) {
          for (int lane = 0; lane < kLanes; ++lane) {
            lanes[lane] += noise_weight<kNorm>(noise[begin + lane * kWords + w]);
          }
        }
      }
      sums[tile] = add_lanes(lanes);
    }
  });
  double lanes[kLanes] = {};
  for (int64_t tile = 0; tile < tiles; ++tile) lanes[tile % kLanes] += sums[tile];
  return add_lanes(lanes);
}

template <PgdNorm kNorm, typename T>
acc_t<T> sample_scale(const RandomStartArgs<T>& args, int64_t sample) {
  const acc_t<T> radius = round_down<acc_t<T>>(args.radii != nullptr ? args.radii[sample] : args.radius);
  if constexpr (kNorm == PgdNorm::kLinf) {
    return radius;
  } else {
    const uint32_t word = philox_block(args.seed, args.offset, sample, kLengthBlock).words[0];
    return noise_scale<acc_t<T>, kNorm>(noise_sum<kNorm>(args, sample), word, radius);
  }
}

template <PgdNorm kNorm, typename T, typename Acc = acc_t<T>>
void start_tile(const Acc* origin, const float* noise, Acc scale, const Acc* lower, const Acc* upper,
                int64_t bound_stride, int64_t count, T* out) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    out[i] = start_value<T, kNorm>(origin[i], noise[i], scale, lower[i * bound_stride], upper[i * bound_stride]);
  }
}

template <PgdNorm kNorm, typename T>
void start_tiles(const RandomStartArgs<T>& args, int64_t sample, acc_t<T> scale, int64_t begin, int64_t end) {
  Tile<T> tile;
  float noise[kTile];
  BoxTile<T> box;
  for_each_tile(begin, end, [&](int64_t i, int64_t count) {
    const int64_t at = sample * args.sample_size + i;
    box.load(args, sample, i, count);
    fill_noise<kNorm>(args, sample, i, count, noise);
    start_tile<kNorm>(tile.load(args.origin + at, count), noise, scale, box.lower, box.upper, box.stride, count,
                      args.out + at);
  });
}

// Samples in parallel; within a sample the passes are parallel only where there is a single one.
template <PgdNorm kNorm, typename T>
void start(const RandomStartArgs<T>& args) {
  parallel_for(args.samples, 1, [&](int64_t first, int64_t last) {
    for (int64_t sample = first; sample < last; ++sample) {
      const acc_t<T> scale = sample_scale<kNorm>(args, sample);
      parallel_for((args.sample_size + kTile - 1) / kTile, kTilesPerTask, [&](int64_t begin, int64_t end) {
        start_tiles<kNorm>(args, sample, scale, begin * kTile, std::min(end * kTile, args.sample_size));
      });
    }
  });
}

}  // namespace

template <typename T>
void random_start(const RandomStartArgs<T>& given) {
  const RandomStartArgs<T> args = with_storable_box(given);
  switch (args.norm) {
    case PgdNorm::kLinf:
      return start<PgdNorm::kLinf>(args);
    case PgdNorm::kL2:
      return start<PgdNorm::kL2>(args);
    case PgdNorm::kL1:
      return start<PgdNorm::kL1>(args);
  }
}

template void random_start<float>(const RandomStartArgs<float>&);
template void random_start<double>(const RandomStartArgs<double>&);
template void random_start<BFloat16>(const RandomStartArgs<BFloat16>&);
template void random_start<Half>(const RandomStartArgs<Half>&);

}  // namespace mdprop::MDPROP_ISA
