// Two ways to find the codes nearer than a query's k-th one so far: bit slices, whose table for a block of codes pays
// once enough queries share it, and popcount. Both offer what they find to the query's CountingSelect.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/macros.h"
#include "common/scratch.h"
#include "hamming_topk/hamming_topk.h"
#include "hamming_topk/hamming_topk_groups.h"
#include "hamming_topk/hamming_topk_math.h"
#include "hamming_topk/hamming_topk_popcount.h"
#include "hamming_topk/hamming_topk_select.h"
#include "hamming_topk/hamming_topk_slices.h"

MDPROP_ISA_BEGIN

// From that many queries on, slices are faster than popcount.
#if defined(__AVX512VPOPCNTDQ__)
inline constexpr int64_t kSlicedQueries = 16;
#elif defined(__POPCNT__)
inline constexpr int64_t kSlicedQueries = 8;
#else
inline constexpr int64_t kSlicedQueries = 5;
#endif
inline constexpr int64_t kMaxSlicedBits = 4096;  // up to here a table fits the second-level cache
inline constexpr int64_t kDirectCodes = 1024;    // codes that stay in the first cache while all queries visit them
inline constexpr int64_t kMinPreviewCodes = 128;

inline int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t maximum(int64_t a, int64_t b) { return a > b ? a : b; }

// ---- popcount ----

// Offers the codes first_index .. first_index + count - 1, by runs that mostly hold nothing near.
inline void offer_all(const int32_t* distances, int64_t count, int64_t first_index, CountingSelect& select) {
  constexpr int64_t kRun = 64;
  for (int64_t run = 0; run < count; run += kRun) {
    const int64_t end = minimum(run + kRun, count);
    int32_t nearest = kNoDistance;
    for (int64_t code = run; code < end; ++code) nearest = distances[code] < nearest ? distances[code] : nearest;
    if (nearest >= select.threshold()) continue;
    for (int64_t code = run; code < end; ++code) select.offer(distances[code], first_index + code);
  }
}

// Gives every query a first threshold from the first codes, so that few of the codes that follow have to be offered.
inline void preview(const HammingTopkArgs<uint64_t>& args, int64_t k, Range queries, Range codes, TileSelection& tile) {
  const int64_t words = word_count(args.bits);
  const DirectDistances measure = plan_direct(words);
  const int64_t count = minimum(codes.size(), maximum(kMinPreviewCodes, 4 * k));
  Scratch<int32_t> distances(count);
  for (int64_t query = queries.begin; query < queries.end; ++query) {
    measure(args.queries + query * words, args.codes + codes.begin * words, count, words, last_word_mask(args.bits),
            distances.data());
    tile[query - queries.begin].preview(distances.data(), count);
  }
}

inline void scan_directly(const HammingTopkArgs<uint64_t>& args, Range queries, Range codes, TileSelection& tile) {
  const int64_t words = word_count(args.bits);
  const DirectDistances measure = plan_direct(words);
  int32_t distances[kDirectCodes];
  for (int64_t first = codes.begin; first < codes.end; first += kDirectCodes) {
    const int64_t count = minimum(kDirectCodes, codes.end - first);
    for (int64_t query = queries.begin; query < queries.end; ++query) {
      measure(args.queries + query * words, args.codes + first * words, count, words, last_word_mask(args.bits),
              distances);
      offer_all(distances, count, first, tile[query - queries.begin]);
    }
  }
}

// ---- bit slices ----

// The table of the current block, and what each query of a tile looks up there and counts against.
struct SlicedTile {
  int64_t groups;  // of bits, padded to what the scan takes
  int levels;      // digits of a distance
  const Slice* table;
  uint16_t* offsets;  // [queries, groups]
  uint64_t* biases;   // [queries, levels + 1]
};

// One block of codes, `codes` [kBlockCodes, words], of which the first `count` exist.
struct Block {
  const uint64_t* codes;
  int64_t first_index;
  int64_t count;
};

// Offers the codes that the slice marks, in increasing order of index, as the selection wants them. Padding comes last.
inline void offer_marked(Slice marked, const Block& block, const uint64_t* query, int64_t words, uint64_t last_mask,
                         CountingSelect& select) {
  for (uint64_t rows = any_lane(marked); rows != 0; rows &= rows - 1) {
    const int row = __builtin_ctzll(rows);
    for (unsigned lanes = lanes_in_row(marked, row); lanes != 0; lanes &= lanes - 1) {
      const int64_t code = row * kSliceLanes + __builtin_ctz(lanes);
      if (code >= block.count) return;
      select.offer(code_distance(query, block.codes + code * words, words, last_mask), block.first_index + code);
    }
  }
}

// kGroups = 0 takes any number of groups and levels.
template <int kGroups, int kLevels>
void scan_block(const HammingTopkArgs<uint64_t>& args, Range queries, const Block& block, const SlicedTile& sliced,
                TileSelection& tile) {
  const int64_t words = word_count(args.bits);
  const uint64_t last_mask = last_word_mask(args.bits);
  for (int64_t query = 0; query < queries.size(); ++query) {
    const uint16_t* offsets = sliced.offsets + query * sliced.groups;
    uint64_t* bias = sliced.biases + query * (sliced.levels + 1);
    Slice far;
    if constexpr (kGroups == 0) {
      far = not_nearer_wide(sliced.table, offsets, bias, sliced.groups, sliced.levels);
    } else {
      far = not_nearer<kGroups, kLevels>(sliced.table, offsets, bias);
    }
    if (__builtin_expect(all_ones(far), true)) continue;
    CountingSelect& select = tile[query];
    const int32_t before = select.threshold();
    offer_marked(~far, block, args.queries + (queries.begin + query) * words, words, last_mask, select);
    if (select.threshold() != before) threshold_bias(select.threshold(), sliced.levels, bias);
  }
}

struct SlicedPlan {
  int64_t groups;
  int levels;
  void (*scan)(const HammingTopkArgs<uint64_t>&, Range, const Block&, const SlicedTile&, TileSelection&);
};

inline SlicedPlan plan_slices(int64_t bits) {
  if (bits <= 33) return {11, 6, scan_block<11, 6>};
  if (bits <= 48) return {16, 6, scan_block<16, 6>};
  if (bits <= 66) return {22, 7, scan_block<22, 7>};
  if (bits <= 96) return {32, 7, scan_block<32, 7>};
  if (bits <= 129) return {43, 8, scan_block<43, 8>};
  if (bits <= 258) return {86, 9, scan_block<86, 9>};
  const int64_t chunks = (group_count(bits) + kChunkGroups - 1) / kChunkGroups;
  return {chunks * kChunkGroups, level_count(bits), scan_block<0, 0>};
}

inline void scan_sliced(const HammingTopkArgs<uint64_t>& args, Range queries, Range codes, TileSelection& tile) {
  const int64_t words = word_count(args.bits);
  const SlicedPlan plan = plan_slices(args.bits);
  Scratch<Slice> table(plan.groups * kGroupSlices);
  Scratch<Slice> planes(maximum(words * 64, plan.groups * kGroupBits));
  Scratch<uint16_t> offsets(queries.size() * plan.groups);
  Scratch<uint64_t> biases(queries.size() * (plan.levels + 1));
  Scratch<uint64_t> last_codes(kBlockCodes * words);  // the last block, padded
  for (int64_t query = 0; query < queries.size(); ++query) {
    query_offsets(args.queries + (queries.begin + query) * words, args.bits, plan.groups,
                  offsets.data() + query * plan.groups);
    threshold_bias(tile[query].threshold(), plan.levels, biases.data() + query * (plan.levels + 1));
  }
  const SlicedTile sliced{plan.groups, plan.levels, table.data(), offsets.data(), biases.data()};
  for (int64_t first = codes.begin; first < codes.end; first += kBlockCodes) {
    Block block{args.codes + first * words, first, minimum(kBlockCodes, codes.end - first)};
    if (block.count < kBlockCodes) {
      std::memset(last_codes.data(), 0, last_codes.size() * sizeof(uint64_t));
      std::memcpy(last_codes.data(), block.codes, block.count * words * sizeof(uint64_t));
      block.codes = last_codes.data();
    }
    fill_table(block.codes, words, args.bits, plan.groups, planes.data(), table.data());
    plan.scan(args, queries, block, sliced, tile);
  }
}

// Offers all of `codes` to the selections of `queries`.
inline void scan(const HammingTopkArgs<uint64_t>& args, Range queries, Range codes, TileSelection& tile) {
  if (queries.size() < kSlicedQueries || args.bits > kMaxSlicedBits) {
    scan_directly(args, queries, codes, tile);
  } else {
    scan_sliced(args, queries, codes, tile);
  }
}

MDPROP_ISA_END
