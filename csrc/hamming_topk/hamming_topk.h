// Exact nearest neighbours of binary codes by Hamming distance, and the packing of codes into 64-bit words.
//
// hamming_topk: for every query the k codes with the smallest (distance, index) pairs, in increasing order, where
// distance = popcount(query xor code) over the first `bits` bits. The lower index wins a tie; with fewer than k codes
// the rest is index -1 and distance kNoDistance. With groups a query sees the codes of its own group alone, and an
// index is still a row of `codes`. The result is exact, hence the same for every number of threads and instruction set.
// Cost: about bits / 48 vector instructions per 8 pairs with AVX-512. Scratch memory on the CPU, whatever Q, N and the
// groups: at most 2 kHammingTileBytes a thread, or 64 (k + bits) bytes where that is more, and kHammingMergeBytes. On a
// card: at most 224 MiB, and 8 bytes a group (hamming_topk_plan.h); k / 2048 scans of the codes.
//
// hamming_distance: all distances of Q x N pairs.
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
inline constexpr int64_t kHammingTileBytes = int64_t{4} << 20;    // state of the queries that are searched together
inline constexpr int64_t kHammingMergeBytes = int64_t{32} << 20;  // neighbours found in parts of the codes

// Word is uint64_t. Inputs and outputs are dense rows that do not overlap.
template <typename Word>
struct HammingTopkArgs {
  const Word* queries;           // [Q, W], W = ceil(bits / 64); bits beyond `bits` are ignored
  const Word* codes;             // [N, W]
  const int64_t* query_offsets;  // [G + 1], never decreasing from 0 to Q; group g has the rows from offset g to g + 1.
  const int64_t* point_offsets;  // [G + 1], never decreasing from 0 to N. Both are nullptr for one group of everything.
  int32_t* distances;            // [Q, k]
  int64_t* indices;              // [Q, k]
  int64_t num_queries;           // Q >= 0
  int64_t num_codes;             // N >= 0
  int64_t num_groups;            // G >= 0; 1 without offsets
  int64_t k;                     // >= 1
  int64_t bits;                  // 1 <= bits < 2^31
  // On a card only:
  int64_t partial_bytes = int64_t{64} << 20;  // of the workspace, for neighbours by query and part of the codes
  unsigned char* workspace = nullptr;         // hamming_topk_workspace(args) bytes, aligned to 16
};

// Word is uint64_t. Inputs as for hamming_topk.
template <typename Word>
struct HammingDistanceArgs {
  const Word* queries;  // [Q, W]
  const Word* codes;    // [N, W]
  int32_t* distances;   // [Q, N]
  int64_t num_queries;  // Q >= 0
  int64_t num_codes;    // N >= 0
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

MDPROP_DECLARE_KERNELS(hamming_topk, HammingTopkArgs)
MDPROP_DECLARE_KERNELS(hamming_distance, HammingDistanceArgs)
MDPROP_DECLARE_KERNELS(pack_codes, PackCodesArgs)
MDPROP_DECLARE_KERNELS(unpack_codes, UnpackCodesArgs)

}  // namespace mdprop
