// Hamming distances of one query to a whole block of codes at once, by counting in bit slices.
//
// A slice is one vector register that holds one bit of every code of a block: bit i of lane c belongs to code
// `kSliceLanes * i + c`. Three code bits compared with three query bits give a count of 0..3, which is two slices; the
// eight possible pairs of slices depend on the block alone and are tabulated once for all queries. A distance is then
// the sum of ceil(bits / 3) table entries, added by carry-save adders (Warren, "Hacker's Delight", 2nd edition, 5-1):
// with AVX-512 about 86 vector instructions for 512 codes of 64 bits, where popcount and compare take more than 200.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/macros.h"
#include "hamming_topk/hamming_topk_math.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

MDPROP_ISA_BEGIN

#if defined(__AVX512F__)
inline constexpr int kSliceLanes = 8;
#elif defined(__AVX2__)
inline constexpr int kSliceLanes = 4;
#else
inline constexpr int kSliceLanes = 2;
#endif
typedef uint64_t Slice __attribute__((vector_size(8 * kSliceLanes)));

inline constexpr int kBlockCodes = 64 * kSliceLanes;
inline constexpr int kGroupBits = 3;
inline constexpr int kGroupPatterns = 1 << kGroupBits;
inline constexpr int kGroupSlices = 2 * kGroupPatterns;  // for every pattern of query bits: slices of weight 1 and 2
inline constexpr int kMaxLevels = 31;                    // binary digits of a distance, at most

constexpr int64_t group_count(int64_t bits) { return (bits + kGroupBits - 1) / kGroupBits; }

// The binary digits of `bits`: 2^levels > bits.
constexpr int level_count(int64_t bits) {
  int levels = 0;
  while (bits >> levels != 0) ++levels;
  return levels;
}

inline Slice parity(Slice a, Slice b, Slice c) {
#if defined(__AVX512F__)
  return (Slice)_mm512_ternarylogic_epi64((__m512i)a, (__m512i)b, (__m512i)c, 0x96);
#else
  return a ^ b ^ c;
#endif
}

inline Slice majority(Slice a, Slice b, Slice c) {
#if defined(__AVX512F__)
  return (Slice)_mm512_ternarylogic_epi64((__m512i)a, (__m512i)b, (__m512i)c, 0xe8);
#else
  return (a & b) | (c & (a ^ b));
#endif
}

inline bool all_ones(Slice slice) {
#if defined(__AVX512F__)
  return _mm512_cmpneq_epi64_mask((__m512i)slice, _mm512_set1_epi64(-1)) == 0;
#elif defined(__AVX2__)
  return _mm256_testc_si256((__m256i)slice, _mm256_set1_epi64x(-1));
#else
  return (slice[0] & slice[1]) == ~uint64_t{0};
#endif
}

// The rows in which some lane has a 1: bit i is the union of bits i of all lanes.
inline uint64_t any_lane(Slice slice) {
  uint64_t rows = 0;
  for (int lane = 0; lane < kSliceLanes; ++lane) rows |= slice[lane];
  return rows;
}

// The lanes that have a 1 in a row: bit c is bit `row` of lane c.
inline unsigned lanes_in_row(Slice slice, int row) {
  const Slice signs = slice << (63 - row);
#if defined(__AVX512F__)
  return _mm512_movepi64_mask((__m512i)signs);
#elif defined(__AVX2__)
  return _mm256_movemask_pd((__m256d)signs);
#elif defined(__SSE2__)
  return _mm_movemask_pd((__m128d)signs);
#else
  return static_cast<unsigned>(signs[0] >> 63 | signs[1] >> 63 << 1);
#endif
}

// A binary counter in every bit position of a block. sum[l] is the digit of weight 2^l; held[l] is a slice of that
// weight that waits for a second one, so that a full adder always takes two new slices. Which levels hold one is known
// at compile time and travels in the template argument kHeld; kLevels is where a carry means overflow.
template <int kLevels>
struct SliceCounter {
  Slice sum[kLevels];
  Slice held[kLevels];
  Slice overflow;
};

// kHeld after one more slice arrived at `level`.
constexpr unsigned held_after(unsigned held, int level, int levels) {
  while (level < levels && (held >> level & 1u) != 0) held &= ~(1u << level++);
  return level < levels ? held | 1u << level : held;
}

template <unsigned kHeld, int kLevel, int kLevels>
inline __attribute__((always_inline)) void add_slice(SliceCounter<kLevels>& counter, Slice slice) {
  if constexpr (kLevel == kLevels) {
    counter.overflow |= slice;
  } else if constexpr ((kHeld >> kLevel & 1u) == 0) {
    counter.held[kLevel] = slice;
  } else {
    const Slice carry = majority(counter.sum[kLevel], counter.held[kLevel], slice);
    counter.sum[kLevel] = parity(counter.sum[kLevel], counter.held[kLevel], slice);
    add_slice<kHeld, kLevel + 1, kLevels>(counter, carry);
  }
}

// Adds the table entries of groups kGroup .. kGroups - 1. offsets: bytes from a group's first table slice to the
// query's.
template <int kGroup, int kGroups, unsigned kHeld, int kLevels>
inline __attribute__((always_inline)) void add_groups(SliceCounter<kLevels>& counter, const Slice* table,
                                                      const uint16_t* offsets) {
  const Slice* entry =
      reinterpret_cast<const Slice*>(reinterpret_cast<const char*>(table + kGroup * kGroupSlices) + offsets[kGroup]);
  add_slice<kHeld, 0, kLevels>(counter, entry[0]);
  constexpr unsigned kHeldBetween = held_after(kHeld, 0, kLevels);
  add_slice<kHeldBetween, 1, kLevels>(counter, entry[1]);
  if constexpr (kGroup + 1 < kGroups) {
    add_groups<kGroup + 1, kGroups, held_after(kHeldBetween, 1, kLevels), kLevels>(counter, table, offsets);
  }
}

constexpr unsigned held_after_groups(int groups, int levels) {
  unsigned held = 0;
  for (int group = 0; group < groups; ++group) held = held_after(held_after(held, 0, levels), 1, levels);
  return held;
}

// Adds the slices still held, lowest level first; returns the last carry.
template <unsigned kHeld, int kLevel, int kLevels>
inline __attribute__((always_inline)) Slice settle(SliceCounter<kLevels>& counter, Slice carry) {
  if constexpr (kLevel == kLevels) {
    return counter.overflow | carry;
  } else {
    Slice& sum = counter.sum[kLevel];
    Slice next;
    if constexpr ((kHeld >> kLevel & 1u) != 0) {
      next = majority(sum, counter.held[kLevel], carry);
      sum = parity(sum, counter.held[kLevel], carry);
    } else {
      next = sum & carry;
      sum ^= carry;
    }
    return settle<kHeld, kLevel + 1, kLevels>(counter, next);
  }
}

inline Slice broadcast(uint64_t word) { return Slice{} + word; }

// The codes of a block that are at least as far as the threshold in `bias` (from threshold_bias), for codes of at most
// kGroups groups whose distances have at most kLevels digits: counting starts at the bias and overflows at the
// threshold.
template <int kGroups, int kLevels>
inline Slice not_nearer(const Slice* table, const uint16_t* offsets, const uint64_t* bias) {
  SliceCounter<kLevels> counter;
  counter.overflow = broadcast(bias[kLevels]);
  for (int level = 0; level < kLevels; ++level) counter.sum[level] = broadcast(bias[level]);
  add_groups<0, kGroups, 0, kLevels>(counter, table, offsets);
  return settle<held_after_groups(kGroups, kLevels), 0, kLevels>(counter, Slice{});
}

// The same for any multiple of kChunkGroups groups and any number of levels from kChunkLevels on.
inline constexpr int kChunkGroups = 32;
inline constexpr int kChunkLevels = 7;  // 2^7 > 3 * kChunkGroups

inline Slice not_nearer_wide(const Slice* table, const uint16_t* offsets, const uint64_t* bias, int64_t groups,
                             int levels) {
  Slice sum[kMaxLevels];
  for (int level = 0; level < levels; ++level) sum[level] = broadcast(bias[level]);
  Slice overflow = broadcast(bias[levels]);
  for (int64_t group = 0; group < groups; group += kChunkGroups) {
    SliceCounter<kChunkLevels> counter;
    counter.overflow = Slice{};
    for (int level = 0; level < kChunkLevels; ++level) counter.sum[level] = sum[level];
    add_groups<0, kChunkGroups, 0, kChunkLevels>(counter, table + group * kGroupSlices, offsets + group);
    Slice carry = settle<held_after_groups(kChunkGroups, kChunkLevels), 0, kChunkLevels>(counter, Slice{});
    for (int level = 0; level < kChunkLevels; ++level) sum[level] = counter.sum[level];
    for (int level = kChunkLevels; level < levels; ++level) {
      const Slice next = sum[level] & carry;
      sum[level] ^= carry;
      carry = next;
    }
    overflow |= carry;
  }
  return overflow;
}

// Swaps, in every 2 * kStep bits, the upper half of `a` with the lower half of `b`.
template <int kStep>
inline void exchange_halves(Slice& a, Slice& b) {
  const Slice low = broadcast(~uint64_t{0} / ((uint64_t{1} << kStep) + 1));
#if defined(__AVX512F__)
  const Slice raised = b << kStep, lowered = a >> kStep;
  a = (Slice)_mm512_ternarylogic_epi64((__m512i)low, (__m512i)a, (__m512i)raised, 0xca);  // low ? a : raised
  b = (Slice)_mm512_ternarylogic_epi64((__m512i)low, (__m512i)lowered, (__m512i)b, 0xca);
#else
  const Slice swapped = ((a >> kStep) ^ b) & low;
  b ^= swapped;
  a ^= swapped << kStep;
#endif
}

// Three steps of the transposition, in registers: on the rows 0, kStride, .. 7 * kStride.
template <int kStride>
inline void transpose_eight(Slice* rows) {
  Slice row[8];
  for (int i = 0; i < 8; ++i) row[i] = rows[i * kStride];
  for (int i = 0; i < 4; ++i) exchange_halves<4 * kStride>(row[i], row[i + 4]);
  for (int i = 0; i < 4; ++i) exchange_halves<2 * kStride>(row[i + i / 2 * 2], row[i + i / 2 * 2 + 2]);
  for (int i = 0; i < 8; i += 2) exchange_halves<kStride>(row[i], row[i + 1]);
  for (int i = 0; i < 8; ++i) rows[i * kStride] = row[i];
}

// Transposes 64 rows of 64 bits in every lane: afterwards bit i of row j is what bit j of row i was.
inline void transpose(Slice* rows) {
  for (int i = 0; i < 8; ++i) transpose_eight<8>(rows + i);
  for (int i = 0; i < 8; ++i) transpose_eight<1>(rows + 8 * i);
}

// Bit planes of one word of a block. codes: [kBlockCodes, words], from the wanted word of the first code on.
inline void fill_planes(const uint64_t* codes, int64_t words, Slice* planes) {
  if (words == 1) {
    std::memcpy(planes, codes, 64 * sizeof(Slice));
  } else {
    uint64_t* row = reinterpret_cast<uint64_t*>(planes);
    for (int code = 0; code < kBlockCodes; ++code) row[code] = codes[code * words];
  }
  transpose(planes);
}

// Fills the table of a block. codes: [kBlockCodes, words]; planes: [max(64 * words, kGroupBits * groups)] to work
// in; table: [groups, kGroupSlices]. Bits beyond `bits` count as equal to the query's.
inline void fill_table(const uint64_t* codes, int64_t words, int64_t bits, int64_t groups, Slice* planes,
                       Slice* table) {
  for (int64_t word = 0; word < words; ++word) fill_planes(codes + word, words, planes + 64 * word);
  for (int64_t position = bits; position < groups * kGroupBits; ++position) planes[position] = Slice{};
  for (int64_t group = 0; group < groups; ++group) {
    const Slice* bit = planes + group * kGroupBits;
    Slice* entries = table + group * kGroupSlices;
    const Slice odd = parity(bit[0], bit[1], bit[2]);
    const Slice most[] = {majority(bit[0], bit[1], bit[2]), majority(~bit[0], bit[1], bit[2]),
                          majority(bit[0], ~bit[1], bit[2]), majority(~bit[0], ~bit[1], bit[2])};
    for (int pattern = 0; pattern < 4; ++pattern) {  // a pattern and its complement have complementary counts
      const bool flipped = pattern == 1 || pattern == 2;
      entries[2 * pattern] = flipped ? ~odd : odd;
      entries[2 * pattern + 1] = most[pattern];
      entries[2 * (7 - pattern)] = flipped ? odd : ~odd;
      entries[2 * (7 - pattern) + 1] = ~most[pattern];
    }
  }
}

// The table offsets of one query. offsets: [groups].
inline void query_offsets(const uint64_t* query, int64_t bits, int64_t groups, uint16_t* offsets) {
  for (int64_t group = 0; group < groups; ++group) {
    unsigned pattern = 0;
    for (int bit = 0; bit < kGroupBits; ++bit) {
      const int64_t position = group * kGroupBits + bit;
      if (position < bits) pattern |= (query[position / 64] >> (position % 64) & 1u) << bit;
    }
    offsets[group] = static_cast<uint16_t>(pattern * 2 * sizeof(Slice));
  }
}

// The binary digits, each 0 or ~0, of 2^levels - threshold: a distance added to it reaches 2^levels where it reaches
// the threshold. bias: [levels + 1], since threshold 0 gives 2^levels itself.
inline void threshold_bias(int64_t threshold, int levels, uint64_t* bias) {
  const int64_t value = (int64_t{1} << levels) - threshold;
  for (int level = 0; level <= levels; ++level) bias[level] = (value >> level & 1) != 0 ? ~uint64_t{0} : 0;
}

MDPROP_ISA_END
