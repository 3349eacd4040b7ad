// Distances of a few queries to the codes that a block holds in registers, by XOR and POPC.
//
// Every thread of a block has kThreadCodes codes of a round of kRoundCodes, and the block goes through the queries: a
// query is the same for all threads, so it comes as a broadcast, and a code that is loaded once meets all queries of
// the tile. POPC has a quarter of the throughput of logic instructions: where a unit has four 32-bit words, a
// carry-save adder makes three of them two.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/device.cuh"
#include "common/vector.cuh"
#include "hamming_topk/hamming_topk_math.h"
#include "hamming_topk/hamming_topk_plan.h"

namespace mdprop {
namespace {

constexpr int kTileThreads = 256;
constexpr int kThreadCodes = kRoundCodes / kTileThreads;
constexpr int kRegisterQueries = 4;  // whose distances a thread has in registers at once

// What a thread loads and compares at once: one word, or two where rows are aligned to 16 bytes.
template <int kWords>
using Unit = Vector<uint64_t, kWords>;

// The codes of a round. Row 0 is where the round begins, and rows [begin, end) exist.
struct CodeRows {
  const uint64_t* codes;
  int words;
  int begin, end;

  __device__ __forceinline__ bool holds(int row) const { return row >= begin && row < end; }
  template <int kWords>
  __device__ __forceinline__ Unit<kWords> load(int row, int unit) const {
    return load_vector<kWords>(codes + int64_t{row} * words + unit * kWords);
  }
};

// The `count` queries of a tile.
struct QueryRows {
  const uint64_t* queries;  // of the tile's first
  int words;
  uint64_t last_mask;  // of the last word, for codes and queries alike
  int count;

  // Beyond the last query, that one stands in: loads without branches between them are under way together.
  template <int kWords>
  __device__ __forceinline__ Unit<kWords> load(int query, int unit) const {
    return load_vector<kWords>(queries + min(query, count - 1) * words + unit * kWords);
  }
};

// The last word counts under `mask`, which costs nothing: logic instructions take three operands.
__device__ __forceinline__ int unit_distance(const Unit<1>& a, const Unit<1>& b, uint64_t mask) {
  return popcount((a[0] ^ b[0]) & mask);
}

__device__ __forceinline__ int unit_distance(const Unit<2>& a, const Unit<2>& b, uint64_t mask) {
  const uint64_t x = a[0] ^ b[0], y = (a[1] ^ b[1]) & mask;
  const auto first = static_cast<uint32_t>(x), second = static_cast<uint32_t>(x >> 32),
             third = static_cast<uint32_t>(y);
  const uint32_t majority = (first & second) | (third & (first ^ second));
  return __popc(first ^ second ^ third) + 2 * __popc(majority) + __popc(static_cast<uint32_t>(y >> 32));
}

// The codes of a thread in a round. With one word a code, neighbouring codes share a 16-byte load; the round then
// begins where the address is aligned to 16 bytes, which may be one row before the codes do.
template <int kWords, bool kOneUnit>
struct CodeTile {
  static constexpr bool kPairs = kWords == 1 && kOneUnit;

  Unit<kWords> units[kThreadCodes];

  // Where the first round of codes that begin at row `begin` begins.
  __device__ __forceinline__ static int64_t first_round(const uint64_t* codes, int64_t begin) {
    return begin - (kPairs && !is_aligned(codes + begin) ? 1 : 0);
  }

  // The thread's code-th row.
  __device__ __forceinline__ static int row(int code) {
    const int thread = static_cast<int>(threadIdx.x);
    return kPairs ? (code / 2 * kTileThreads + thread) * 2 + code % 2 : code * kTileThreads + thread;
  }

  // Rows that do not exist are 0.
  __device__ __forceinline__ void load(const CodeRows& rows, int unit) {
#pragma unroll
    for (int code = 0; code < kThreadCodes; code += kPairs ? 2 : 1) {
      const int at = row(code);
      if constexpr (kPairs) {
        if (rows.holds(at) && rows.holds(at + 1)) {
          const auto pair = load_vector<2>(rows.codes + at);
          units[code] = {pair[0]};
          units[code + 1] = {pair[1]};
          continue;
        }
        units[code + 1] = rows.holds(at + 1) ? rows.template load<1>(at + 1, 0) : Unit<1>{};
      }
      units[code] = rows.holds(at) ? rows.template load<kWords>(at, unit) : Unit<kWords>{};
    }
  }
};

// Adds the distances of the thread's codes to kRegisterQueries queries of the tile, from `query` on. A code of one unit
// stays in `tile`, where the caller has loaded it; longer ones pass through it.
template <int kWords, bool kOneUnit>
__device__ __forceinline__ void add_distances(CodeTile<kWords, kOneUnit>& tile, const CodeRows& rows,
                                              const QueryRows& queries, int query,
                                              int (&distances)[kRegisterQueries][kThreadCodes]) {
  const int units = kOneUnit ? 1 : rows.words / kWords;
#pragma unroll 1  // more units at once do not fit the registers
  for (int unit = 0; unit < units; ++unit) {
    if constexpr (!kOneUnit) tile.load(rows, unit);
    const uint64_t mask = unit + 1 == units ? queries.last_mask : ~uint64_t{0};
#pragma unroll
    for (int i = 0; i < kRegisterQueries; ++i) {
      const auto wanted = queries.template load<kWords>(query + i, unit);
#pragma unroll
      for (int code = 0; code < kThreadCodes; ++code) {
        distances[i][code] += unit_distance(tile.units[code], wanted, mask);
      }
    }
  }
}

}  // namespace
}  // namespace mdprop
