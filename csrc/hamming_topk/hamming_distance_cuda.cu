#include "common/launch.h"
#include "hamming_topk/hamming_topk.h"
#include "hamming_topk/hamming_topk_tile.cuh"

namespace mdprop {
namespace {

constexpr int64_t kMaxBlocks = int64_t{1} << 20;

// A block takes kTileQueries queries and kRoundCodes codes. Neighbouring threads write neighbouring distances: the
// result is nearly all of the traffic, and rows of N distances are aligned to no more than one.
template <int kWords>
__global__ void __launch_bounds__(kTileThreads, 2)
    hamming_distance_kernel(const __grid_constant__ HammingDistanceArgs<uint64_t> args) {
  const int words = static_cast<int>(word_count(args.bits));
  const uint64_t mask = last_word_mask(args.bits);
  const int64_t code_tiles = count_pieces(args.num_codes, kRoundCodes);
  const int64_t tiles = code_tiles * count_pieces(args.num_queries, kRegisterQueries);
  CodeTile<kWords, false> tile;
  for (int64_t i = blockIdx.x; i < tiles; i += gridDim.x) {
    const int64_t first = i % code_tiles * kRoundCodes, query = i / code_tiles * kRegisterQueries;
    const int count = static_cast<int>(min(int64_t{kRegisterQueries}, args.num_queries - query));
    const CodeRows codes{args.codes + first * words, words, 0,
                         static_cast<int>(min(int64_t{kRoundCodes}, args.num_codes - first))};
    int distances[kRegisterQueries][kThreadCodes] = {};
    add_distances(tile, codes, {args.queries + query * words, words, mask, count}, 0, distances);
#pragma unroll
    for (int row = 0; row < kRegisterQueries; ++row) {
      if (row >= count) break;
#pragma unroll
      for (int code = 0; code < kThreadCodes; ++code) {
        const int at = tile.row(code);
        if (codes.holds(at)) args.distances[(query + row) * args.num_codes + first + at] = distances[row][code];
      }
    }
  }
}

}  // namespace

template <typename Word>
void hamming_distance_cuda(const HammingDistanceArgs<Word>& args, void* stream) {
  const int64_t tiles = count_pieces(args.num_codes, kRoundCodes) * count_pieces(args.num_queries, kRegisterQueries);
  if (tiles == 0) return;
  const auto blocks = static_cast<unsigned>(std::min(tiles, kMaxBlocks));
  if (word_count(args.bits) % 2 == 0 && is_aligned(args.codes) && is_aligned(args.queries)) {
    launch<hamming_distance_kernel<2>>(blocks, kTileThreads, 0, stream, args);
  } else {
    launch<hamming_distance_kernel<1>>(blocks, kTileThreads, 0, stream, args);
  }
}

template void hamming_distance_cuda<uint64_t>(const HammingDistanceArgs<uint64_t>&, void*);

}  // namespace mdprop
