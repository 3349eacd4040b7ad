// Hamming distances of one query to several codes, word by word.
#pragma once

#include <cstdint>

#include "common/macros.h"
#include "hamming_topk/hamming_topk_math.h"

MDPROP_ISA_BEGIN

// The distances of `count` codes to one query. kWords: words of a code, or 0 for any number.
template <int kWords>
void direct_distances(const uint64_t* query, const uint64_t* codes, int64_t count, int64_t words, uint64_t last_mask,
                      int32_t* distances) {
  const int64_t size = kWords == 0 ? words : kWords;
  for (int64_t code = 0; code < count; ++code) {
    distances[code] = code_distance(query, codes + code * size, size, last_mask);
  }
}

using DirectDistances = void (*)(const uint64_t*, const uint64_t*, int64_t, int64_t, uint64_t, int32_t*);

inline DirectDistances plan_direct(int64_t words) {
  switch (words) {
    case 1:
      return direct_distances<1>;
    case 2:
      return direct_distances<2>;
    case 4:
      return direct_distances<4>;
    default:
      return direct_distances<0>;
  }
}

MDPROP_ISA_END
