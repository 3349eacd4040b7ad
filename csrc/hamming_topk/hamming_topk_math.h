// The formulae of Hamming distance on packed codes, for host and device.
#pragma once

#include <cstdint>

#include "common/macros.h"
#include "common/numeric.h"

MDPROP_ISA_BEGIN

inline constexpr int64_t kWordBits = 64;

MDPROP_HOST_DEVICE int64_t word_count(int64_t bits) { return (bits + kWordBits - 1) / kWordBits; }

// The bits of a row's last word that belong to the code.
MDPROP_HOST_DEVICE uint64_t last_word_mask(int64_t bits) {
  return ~uint64_t{0} >> (word_count(bits) * kWordBits - bits);
}

MDPROP_HOST_DEVICE int32_t popcount(uint64_t word) {
#if defined(__CUDA_ARCH__)
  return __popcll(word);
#elif defined(__POPCNT__) || !defined(__GNUC__)
  return __builtin_popcountll(word);
#else
  // Without the instruction the builtin is a library call per word; these sums of neighbours vectorise.
  word -= (word >> 1) & 0x5555555555555555u;
  word = (word & 0x3333333333333333u) + ((word >> 2) & 0x3333333333333333u);
  word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fu;
  word += word >> 8;
  word += word >> 16;
  word += word >> 32;
  return static_cast<int32_t>(word & 0x7fu);
#endif
}

// popcount(query xor code) over `words` words, of which the last counts under `last_mask`.
MDPROP_HOST_DEVICE int32_t code_distance(const uint64_t* query, const uint64_t* code, int64_t words,
                                         uint64_t last_mask) {
  int32_t distance = popcount((query[words - 1] ^ code[words - 1]) & last_mask);
  for (int64_t word = 0; word < words - 1; ++word) distance += popcount(query[word] ^ code[word]);
  return distance;
}

// Whether a number is a 1 of a binary code: NaN is not.
template <typename T>
MDPROP_HOST_DEVICE bool is_positive(T value) {
  return value > T(0);
}
// Half types by their bits: a positive number is above zero and at most infinity.
MDPROP_HOST_DEVICE bool is_positive(Half value) { return static_cast<uint16_t>(value.bits - 1) < 0x7c00; }
MDPROP_HOST_DEVICE bool is_positive(BFloat16 value) { return static_cast<uint16_t>(value.bits - 1) < 0x7f80; }

// Eight bits to eight bytes of 0 or 1: each byte of the product keeps its own bit, which then moves to the lowest
// place.
MDPROP_HOST_DEVICE uint64_t scatter_bits(uint64_t bits) {
  constexpr uint64_t kLowBits = 0x0101010101010101u;  // the lowest bit of each of eight bytes
  const uint64_t own = (bits & 0xffu) * kLowBits & 0x8040201008040201u;
  return (own + 0x7f7f7f7f7f7f7f7fu) >> 7 & kLowBits;
}

MDPROP_ISA_END
