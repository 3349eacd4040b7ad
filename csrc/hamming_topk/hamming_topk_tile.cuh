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
constexpr int kRegisterQueries = 8;  // whose distances a thread has in registers at once

// What a thread loads and compares at once: one word, or two where rows are aligned to 16 bytes.
template <int kWords>
using Unit = Vector<uint64_t, kWords>;

// Rows [begin, end) of packed codes; `codes` is row 0.
struct CodeRows {
  const uint64_t* codes;
  int64_t words;
  uint64_t last_mask;
  int64_t begin, end;

  __device__ __forceinline__ bool holds(int64_t row) const { return row >= begin && row < end; }

  template <int kWords>
  __device__ __forceinline__ Unit<kWords> load(int64_t row, int64_t unit) const {
    return masked(load_vector<kWords>(codes + row * words + unit * kWords), unit);
  }

  // Bits beyond the code must not count.
  template <int kWords>
  __device__ __forceinline__ Unit<kWords> masked(Unit<kWords> value, int64_t unit) const {
    if ((unit + 1) * kWords == words) value[kWords - 1] &= last_mask;
    return value;
  }
};

__device__ __forceinline__ int unit_distance(const Unit<1>& a, const Unit<1>& b) { return popcount(a[0] ^ b[0]); }

__device__ __forceinline__ int unit_distance(const Unit<2>& a, const Unit<2>& b) {
  const uint64_t x = a[0] ^ b[0], y = a[1] ^ b[1];
  const auto first = static_cast<uint32_t>(x), second = static_cast<uint32_t>(x >> 32),
             third = static_cast<uint32_t>(y);
  const uint32_t majority = (first & second) | (third & (first ^ second));
  return __popc(first ^ second ^ third) + 2 * __popc(majority) + __popc(static_cast<uint32_t>(y >> 32));
}

// The codes of a thread in a round that starts at row `first`. With one word a code, neighbouring codes share a 16-byte
// load; `first` is then such that the address of its row is aligned to 16 bytes, and may lie one row before the range.
template <int kWords, bool kOneUnit>
struct CodeTile {
  static constexpr bool kPairs = kWords == 1 && kOneUnit;

  Unit<kWords> units[kThreadCodes];

  __device__ __forceinline__ static int64_t first_row(const CodeRows& rows) {
    return rows.begin - (kPairs && !is_aligned(rows.codes + rows.begin) ? 1 : 0);
  }

  __device__ __forceinline__ static int64_t row(int64_t first, int code) {
    const int thread = static_cast<int>(threadIdx.x);
    return first + (kPairs ? (code / 2 * kTileThreads + thread) * 2 + code % 2 : code * kTileThreads + thread);
  }

  // Rows outside the range are 0.
  __device__ __forceinline__ void load(const CodeRows& rows, int64_t first, int64_t unit) {
#pragma unroll
    for (int code = 0; code < kThreadCodes; code += kPairs ? 2 : 1) {
      const int64_t at = row(first, code);
      if constexpr (kPairs) {
        if (rows.holds(at) && rows.holds(at + 1)) {
          const auto pair = load_vector<2>(rows.codes + at);
          units[code] = rows.masked(Unit<1>{pair[0]}, 0);
          units[code + 1] = rows.masked(Unit<1>{pair[1]}, 0);
          continue;
        }
        units[code + 1] = rows.holds(at + 1) ? rows.template load<1>(at + 1, 0) : Unit<1>{};
      }
      units[code] = rows.holds(at) ? rows.template load<kWords>(at, unit) : Unit<kWords>{};
    }
  }
};

// Adds the distances of the thread's codes to `count` <= kRegisterQueries queries from row `query` on. A code of one
// unit stays in `tile`, where the caller has loaded it; longer ones pass through it.
template <int kWords, bool kOneUnit>
__device__ __forceinline__ void add_distances(CodeTile<kWords, kOneUnit>& tile, const CodeRows& rows, int64_t first,
                                              const CodeRows& queries, int64_t query, int count,
                                              int (&distances)[kRegisterQueries][kThreadCodes]) {
  const int64_t units = kOneUnit ? 1 : rows.words / kWords;
  for (int64_t unit = 0; unit < units; ++unit) {
    if constexpr (!kOneUnit) tile.load(rows, first, unit);
#pragma unroll
    for (int i = 0; i < kRegisterQueries; ++i) {
      if (i >= count) break;
      const auto wanted = queries.template load<kWords>(query + i, unit);
#pragma unroll
      for (int code = 0; code < kThreadCodes; ++code) {
        distances[i][code] += unit_distance(tile.units[code], wanted);
      }
    }
  }
}

}  // namespace
}  // namespace mdprop
