// random_start on a card: the bits of the CPU kernel. l2 and l1 draw the noise twice, once for its length and once for
// the result, since drawing costs less than keeping.
#include "pgd_step/pgd_step.h"

#include <algorithm>
#include <cstdint>
#include <stdexcept>

#include "common/device.cuh"
#include "common/launch.h"
#include "common/vector.cuh"
#include "pgd_step/pgd_step_plan.h"
#include "pgd_step/pgd_step_runs.cuh"
#include "pgd_step/random_start_math.h"

namespace mdprop {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;

// The noise of a call, with the sums of its tiles and then its scales in the scratch memory.
struct Noise {
  uint64_t seed, offset;
  int64_t samples, sample_size, tiles;
  double* sums;    // [N, tiles]
  double* scales;  // [N]
};

// One warp a tile: lane l adds up blocks of four values l, l + 32, ..., then the lanes are added pairwise.
template <PgdNorm kNorm>
__global__ void __launch_bounds__(kThreads) noise_sum_kernel(const __grid_constant__ Noise noise) {
  const int64_t tile = static_cast<int64_t>(blockIdx.x) * kWarps + warp_id();
  if (tile >= noise.samples * noise.tiles) return;
  const int64_t sample = tile / noise.tiles, begin = tile % noise.tiles * kNoiseTile;
  const int64_t end = min(begin + kNoiseTile, noise.sample_size);
  double sum = 0;
  for (int64_t i = begin + lane_id() * kWords; i < end; i += kWarpSize * kWords) {
    float values[kWords];
    noise_of<kNorm>(philox_block(noise.seed, noise.offset, sample, static_cast<uint32_t>(i / kWords)), values);
    for (int w = 0; w < kWords; ++w) sum += i + w < end ? noise_weight<kNorm>(values[w]) : 0.0;
  }
  sum = warp_sum(sum);
  if (lane_id() == 0) noise.sums[tile] = sum;
}

// One warp a sample.
template <PgdNorm kNorm, typename Acc>
__global__ void __launch_bounds__(kThreads)
    noise_scale_kernel(const __grid_constant__ Noise noise, const double* radii, double radius) {
  const int64_t sample = static_cast<int64_t>(blockIdx.x) * kWarps + warp_id();
  if (sample >= noise.samples) return;
  double sum = 0;
  for (int64_t tile = lane_id(); tile < noise.tiles; tile += kWarpSize) sum += noise.sums[sample * noise.tiles + tile];
  sum = warp_sum(sum);
  if (lane_id() != 0) return;
  const uint32_t word = philox_block(noise.seed, noise.offset, sample, kLengthBlock).words[0];
  const Acc limit = round_down<Acc>(radii != nullptr ? radii[sample] : radius);
  noise.scales[sample] = noise_scale<Acc, kNorm>(sum, word, limit);
}

// One thread a block of four values: a vector for each type but fp64, which takes two.
template <PgdNorm kNorm, typename T>
__global__ void __launch_bounds__(kThreads)
    random_start_kernel(const __grid_constant__ RandomStartArgs<T> args, const double* scales, int64_t blocks_a_sample,
                        bool vector) {
  using Acc = acc_t<T>;
  const int64_t block = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t sample = block / blocks_a_sample, number = block % blocks_a_sample;
  if (sample >= args.samples) return;
  const RunPlace place{number * kWords, 1, vector};
  T origin[kWords] = {}, results[kWords];
  Acc lower[kWords], upper[kWords];
  load_run<true>(args.origin + sample * args.sample_size, place, args.sample_size, origin);
  load_bounds<T>(args, sample, place, lower, upper);
  Acc scale;
  if constexpr (kNorm == PgdNorm::kLinf) {
    scale = round_down<Acc>(args.radii != nullptr ? args.radii[sample] : args.radius);
  } else {
    scale = static_cast<Acc>(scales[sample]);
  }
  float noise[kWords];
  noise_of<kNorm>(philox_block(args.seed, args.offset, sample, static_cast<uint32_t>(number)), noise);
  for (int w = 0; w < kWords; ++w) {
    results[w] = start_value<T, kNorm>(widen(origin[w]), noise[w], scale, lower[w], upper[w]);
  }
  store_run(args.out + sample * args.sample_size, place, args.sample_size, results);
}

unsigned grid_size(int64_t items, int64_t items_a_block) {
  const int64_t blocks = (items + items_a_block - 1) / items_a_block;
  if (blocks >= int64_t{1} << 31) throw std::runtime_error("random_start: more than 2^31 blocks of values");
  return static_cast<unsigned>(blocks);
}

template <PgdNorm kNorm, typename T>
void start(const RandomStartArgs<T>& args, void* stream) {
  const int64_t tiles = count_noise_tiles(args.sample_size);
  Noise noise{args.seed, args.offset, args.samples, args.sample_size, tiles, nullptr, nullptr};
  if constexpr (kNorm != PgdNorm::kLinf) {
    noise.sums = reinterpret_cast<double*>(args.workspace);
    noise.scales = noise.sums + args.samples * tiles;
    launch<noise_sum_kernel<kNorm>>(grid_size(args.samples * tiles, kWarps), kThreads, 0, stream, noise);
    launch<noise_scale_kernel<kNorm, acc_t<T>>>(grid_size(args.samples, kWarps), kThreads, 0, stream, noise, args.radii,
                                                args.radius);
  }
  const int64_t blocks_a_sample = (args.sample_size + kWords - 1) / kWords;
  const size_t bytes = std::min<size_t>(kWords * sizeof(T), 16);
  const bool vector = args.sample_size % kWords == 0 && is_aligned(args.origin, bytes) && is_aligned(args.out, bytes) &&
                      is_aligned(args.lower_bounds) && is_aligned(args.upper_bounds);
  launch<random_start_kernel<kNorm, T>>(grid_size(args.samples * blocks_a_sample, kThreads), kThreads, 0, stream, args,
                                        static_cast<const double*>(noise.scales), blocks_a_sample, vector);
}

}  // namespace

template <typename T>
void random_start_cuda(const RandomStartArgs<T>& given, void* stream) {
  const RandomStartArgs<T> args = with_storable_box(given);
  switch (args.norm) {
    case PgdNorm::kLinf:
      return start<PgdNorm::kLinf>(args, stream);
    case PgdNorm::kL2:
      return start<PgdNorm::kL2>(args, stream);
    case PgdNorm::kL1:
      return start<PgdNorm::kL1>(args, stream);
  }
}

template void random_start_cuda<float>(const RandomStartArgs<float>&, void*);
template void random_start_cuda<double>(const RandomStartArgs<double>&, void*);
template void random_start_cuda<BFloat16>(const RandomStartArgs<BFloat16>&, void*);
template void random_start_cuda<Half>(const RandomStartArgs<Half>&, void*);

}  // namespace mdprop
