// How hamming_topk cuts its work on a card, and the scratch memory that this takes. Host arithmetic on sizes alone: no
// value on the device and no property of it has a say, so grids and results are those of the shapes.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/macros.h"
#include "hamming_topk/hamming_topk.h"
#include "hamming_topk/hamming_topk_math.h"

MDPROP_ISA_BEGIN

constexpr int kTileQueries = 16;       // queries that a block compares with the codes it has in registers
constexpr int kRoundCodes = 1024;      // codes that a block has in registers at once
constexpr int kPassNeighbours = 2048;  // neighbours of a query that one pass over the codes finds
constexpr int kMaxScanBlocks = 512;
constexpr int64_t kTargetItems = 2048;  // pieces of work: several a block, so that all blocks end together
constexpr int64_t kMinSplitCodes = 4 * kRoundCodes;
constexpr int64_t kCandidateBytes = int64_t{160} << 20;

MDPROP_HOST_DEVICE int64_t count_pieces(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct HammingTopkPlan {
  int64_t split_codes;    // codes of a group that one block scans for a tile of queries, a multiple of kRoundCodes
  int64_t splits;         // of a group, at most
  int64_t chunk_queries;  // queries that a launch searches, whose neighbours by split fit the scratch memory
  int64_t blocks;         // that scan, at most
  int index_bits;         // of a key: distance * 2^index_bits + index
  int key_bits;           // of the greatest key
  int pass_k;             // neighbours that a pass finds
  int capacity;           // candidates that a block keeps for a query, with room for those of a round

  int64_t candidates_at, items_at;  // bytes into the scratch memory; partial results are at 0
  int64_t bytes;                    // of scratch memory
};

inline int bit_length(int64_t value) {
  int length = 0;
  for (; value > 0; value >>= 1) ++length;
  return length;
}

// Tiles of `queries` queries in ragged groups: each group may end with a tile that is not full.
inline int64_t max_tiles(int64_t queries, int64_t groups) { return queries / kTileQueries + std::min(queries, groups); }

inline HammingTopkPlan plan_hamming_topk(const HammingTopkArgs<uint64_t>& args) {
  constexpr int64_t kKeyBytes = sizeof(uint64_t);
  HammingTopkPlan plan;
  plan.pass_k = static_cast<int>(std::clamp<int64_t>(std::min(args.k, args.num_codes), 1, kPassNeighbours));
  // The more candidates beyond k are kept, the rarer are selections.
  plan.capacity = plan.pass_k + std::max(plan.pass_k / 2, 512) + kRoundCodes;
  plan.index_bits = bit_length(args.num_codes);
  plan.key_bits = plan.index_bits + bit_length(args.bits);

  // Splits fill the card where queries are few. Each begins without a threshold, so it should see many codes.
  const int64_t row_bytes = plan.pass_k * kKeyBytes;
  const int64_t tiles = std::max<int64_t>(1, max_tiles(args.num_queries, args.num_groups));
  const int64_t wanted =
      std::min({count_pieces(kTargetItems, tiles), args.num_codes / std::max(kMinSplitCodes, int64_t{8} * plan.pass_k),
                args.partial_bytes / (row_bytes * std::max<int64_t>(1, args.num_queries))});
  plan.split_codes =
      count_pieces(count_pieces(args.num_codes, std::max<int64_t>(1, wanted)), kRoundCodes) * kRoundCodes;
  plan.split_codes = std::max<int64_t>(plan.split_codes, kRoundCodes);
  plan.splits = std::max<int64_t>(1, count_pieces(args.num_codes, plan.split_codes));
  const int64_t fitting = args.partial_bytes / (row_bytes * plan.splits);
  plan.chunk_queries =
      args.num_queries <= fitting ? args.num_queries : std::max<int64_t>(1, fitting / kTileQueries) * kTileQueries;

  const int64_t block_bytes = int64_t{kTileQueries} * plan.capacity * kKeyBytes;
  const int64_t items = max_tiles(plan.chunk_queries, args.num_groups) * plan.splits;
  plan.blocks = std::min({int64_t{kMaxScanBlocks}, items, kCandidateBytes / block_bytes});
  plan.candidates_at = plan.chunk_queries * plan.splits * row_bytes;
  plan.items_at = plan.candidates_at + plan.blocks * block_bytes;
  plan.bytes = plan.items_at + (args.query_offsets == nullptr ? 0 : (args.num_groups + 1) * kKeyBytes);
  return plan;
}

// Bytes of HammingTopkArgs::workspace: at most partial_bytes + kCandidateBytes, and 8 a group.
inline int64_t hamming_topk_workspace(const HammingTopkArgs<uint64_t>& args) { return plan_hamming_topk(args).bytes; }

MDPROP_ISA_END
