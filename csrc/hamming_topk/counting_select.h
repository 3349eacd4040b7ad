// Streaming selection of the k nearest by distances that are small integers: a histogram instead of a heap.
#pragma once

#include <cstdint>

#include "common/macros.h"

MDPROP_ISA_BEGIN

// Takes (distance, index) pairs of one query, those of equal distance in increasing order of index, and keeps the k
// nearest. A histogram gives the k-th smallest distance after every pair, so candidates are refused as early as possible
// and the final order is a counting sort. Each pair costs O(1) amortised. Holds pointers into buffers of the caller.
class CountingSelect {
 public:
  // The candidates kept between two compactions; more would only cost memory.
  static int64_t capacity(int64_t k) { return 2 * k + 64; }

  // distances, indices: [capacity(k)]; histogram: [bits + 1].
  CountingSelect(int64_t k, int64_t bits, int32_t* distances, int64_t* indices, int64_t* histogram)
      : k_(k), distances_(distances), indices_(indices), histogram_(histogram), threshold_(static_cast<int32_t>(bits) + 1) {
    for (int64_t distance = 0; distance <= bits; ++distance) histogram_[distance] = 0;
  }

  // Only pairs of a smaller distance can still enter: bits + 1 until k pairs came, the k-th smallest distance after.
  int32_t threshold() const { return threshold_; }

  void offer(int32_t distance, int64_t index) {
    if (distance >= threshold_) return;
    if (size_ == capacity(k_)) compact();
    distances_[size_] = distance;
    indices_[size_] = index;
    ++size_;
    ++histogram_[distance];
    ++below_;
    while (below_ >= k_) below_ -= histogram_[--threshold_];
  }

  // Writes the pairs kept, at most k, in order; returns how many. The selection is used up.
  int64_t finish(int32_t* distances, int64_t* indices) {
    compact();
    int64_t start = 0;
    for (int32_t distance = 0; distance < threshold_; ++distance) {  // counts become positions
      const int64_t count = histogram_[distance];
      histogram_[distance] = start;
      start += count;
      if (start == size_) break;
    }
    for (int64_t i = 0; i < size_; ++i) {
      const int64_t place = distances_[i] < threshold_ ? histogram_[distances_[i]]++ : start++;
      distances[place] = distances_[i];
      indices[place] = indices_[i];
    }
    return size_;
  }

 private:
  // Drops what lies beyond the k-th pair: above the threshold, or at it and late.
  void compact() {
    int64_t room_at_threshold = k_ - below_;
    int64_t kept = 0;
    for (int64_t i = 0; i < size_; ++i) {
      const int32_t distance = distances_[i];
      if (distance > threshold_ || (distance == threshold_ && room_at_threshold-- <= 0)) continue;
      distances_[kept] = distance;
      indices_[kept] = indices_[i];
      ++kept;
    }
    size_ = kept;
  }

  int64_t k_;
  int32_t* distances_;
  int64_t* indices_;
  int64_t* histogram_;  // pairs taken by distance; exact below the threshold
  int32_t threshold_;
  int64_t below_ = 0;  // pairs with a distance below the threshold, always < k
  int64_t size_ = 0;
};

MDPROP_ISA_END
