// The tie rule of every top-k: pairs (distance, index) in increasing order, so the lower index wins a tie.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/macros.h"

MDPROP_ISA_BEGIN

template <typename Distance>
struct Neighbour {
  Distance distance;
  int64_t index;
};

// Strict order of neighbours: NaN distances come last, equal distances are ordered by index.
struct Nearer {
  template <typename Distance>
  bool operator()(const Neighbour<Distance>& a, const Neighbour<Distance>& b) const {
    if (a.distance < b.distance) return true;
    if (b.distance < a.distance) return false;
    const bool a_nan = a.distance != a.distance, b_nan = b.distance != b.distance;
    if (a_nan != b_nan) return b_nan;
    return a.index < b.index;
  }
};

// Moves the k nearest of [begin, begin + size) to the front, in no particular order; requires size >= k >= 1. O(size).
template <typename Distance>
void keep_nearest(Neighbour<Distance>* begin, int64_t size, int64_t k) {
  if (size > k) std::nth_element(begin, begin + (k - 1), begin + size, Nearer());
}

template <typename Distance>
void sort_nearest(Neighbour<Distance>* begin, int64_t size) {
  std::sort(begin, begin + size, Nearer());
}

MDPROP_ISA_END
