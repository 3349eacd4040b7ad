#include "common/parallel.h"
#include "hamming_topk/hamming_topk.h"
#include "hamming_topk/hamming_topk_groups.h"
#include "hamming_topk/hamming_topk_popcount.h"

namespace mdprop::MDPROP_ISA {
namespace {

constexpr int64_t kTileCodes = 1024;  // codes that stay in the first cache while the queries of a tile visit them
constexpr int64_t kTileQueries = 64;

Range tile_of(int64_t tile, int64_t size, int64_t count) {
  return {tile * size, (tile + 1) * size < count ? (tile + 1) * size : count};
}

}  // namespace

template <typename Word>
void hamming_distance(const HammingDistanceArgs<Word>& args) {
  const int64_t words = word_count(args.bits);
  const uint64_t last_mask = last_word_mask(args.bits);
  const DirectDistances measure = plan_direct(words);
  const int64_t code_tiles = (args.num_codes + kTileCodes - 1) / kTileCodes;
  const int64_t query_tiles = (args.num_queries + kTileQueries - 1) / kTileQueries;
  parallel_for(query_tiles * code_tiles, 2, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const Range queries = tile_of(tile / code_tiles, kTileQueries, args.num_queries);
      const Range codes = tile_of(tile % code_tiles, kTileCodes, args.num_codes);
      for (int64_t query = queries.begin; query < queries.end; ++query) {
        measure(args.queries + query * words, args.codes + codes.begin * words, codes.size(), words, last_mask,
                args.distances + query * args.num_codes + codes.begin);
      }
    }
  });
}

template void hamming_distance<uint64_t>(const HammingDistanceArgs<uint64_t>&);

}  // namespace mdprop::MDPROP_ISA
