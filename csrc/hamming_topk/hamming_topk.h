// Exact nearest neighbours of binary codes by Hamming distance, and the packing of codes into 64-bit words.
//
// hamming_topk: for every query the k codes with the smallest (distance, index) pairs, in increasing order, where
// distance = popcount(query xor code) over the first `bits` bits. The lower index wins a tie; with fewer than k codes
// the rest is index -1 and distance kNoDistance. The result is exact, hence the same for every thread count and
// instruction set. Cost: about bits / 48 vector instructions per 8 pairs with AVX-512, and O(k) memory a query in
// flight.
//
// pack_codes: bit j of a row goes to bit j % 64 of word j / 64 and is 1 where the value is > 0 (NaN is not); padding is
// 0. unpack_codes: the inverse; bits beyond `bits` are ignored.
#pragma once

#include <cstdint>
#include <limits>

#include "common/cpu_isa.h"
#include "common/numeric.h"

namespace mdprop {

inline constexpr int32_t kNoDistance = std::numeric_limits<int32_t>::max();
inline constexpr int64_t kNoIndex = -1;

// Word is uint64_t. Inputs and outputs are dense rows that do not overlap.
template <typename Word>
struct HammingTopkArgs {
  const Word* queries;  // [Q, W], W = ceil(bits / 64); bits beyond `bits` are ignored
  const Word* codes;    // [N, W]
  int32_t* distances;   // [Q, k]
  int64_t* indices;     // [Q, k]
  int64_t num_queries;  // Q >= 0
  int64_t num_codes;    // N >= 0
  int64_t k;            // >= 1
  int64_t bits;         // 1 <= bits < 2^31
};

// T is any type of numeric.h or a built-in arithmetic type; bool is stored as uint8_t.
template <typename T>
struct PackCodesArgs {
  const T* codes;     // [N, K]
  uint64_t* packed;   // [N, ceil(K / 64)]
  int64_t num_codes;  // N
  int64_t bits;       // K
};

// T is uint8_t: 0 or 1, as torch stores bool.
template <typename T>
struct UnpackCodesArgs {
  const uint64_t* packed;  // [N, ceil(K / 64)]
  T* codes;                // [N, K]
  int64_t num_codes;       // N
  int64_t bits;            // K
};

MDPROP_DECLARE_CPU(hamming_topk, HammingTopkArgs)
MDPROP_DECLARE_CPU(pack_codes, PackCodesArgs)
MDPROP_DECLARE_CPU(unpack_codes, UnpackCodesArgs)

}  // namespace mdprop
