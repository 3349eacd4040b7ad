// Streaming selection of the k nearest by distances that are small integers: a histogram instead of a heap.
#pragma once

#include <cstdint>

#include "common/macros.h"
#include "common/scratch.h"
#include "hamming_topk/hamming_topk.h"

MDPROP_ISA_BEGIN

// Takes (distance, index) pairs of one query, those of equal distance in increasing order of index, and keeps the k
// nearest. A histogram gives the k-th smallest distance after every pair, so candidates are refused as early as
// possible and the final order is a counting sort. Each pair costs O(1) amortised. Holds pointers into buffers of the
// caller.
class CountingSelect {
 public:
  // The candidates kept between two compactions; more would only cost memory.
  static int64_t capacity(int64_t k) { return 2 * k + 64; }

  // distances, indices: [capacity(k)]; histogram: [bits + 1].
  CountingSelect(int64_t k, int64_t bits, int32_t* distances, int64_t* indices, int64_t* histogram)
      : k_(k),
        distances_(distances),
        indices_(indices),
        histogram_(histogram),
        threshold_(static_cast<int32_t>(bits) + 1) {
    for (int64_t distance = 0; distance <= bits; ++distance) histogram_[distance] = 0;
  }

  // Only pairs of a smaller distance can still enter: bits + 1 at first, the k-th smallest distance once k pairs came.
  int32_t threshold() const { return threshold_; }

  // Lowers the first threshold to what `count` of the pairs that are still to be offered allow, before any offer.
  void preview(const int32_t* distances, int64_t count) {
    if (count < k_) return;
    for (int64_t i = 0; i < count; ++i) ++histogram_[distances[i]];
    int32_t distance = 0;
    int64_t nearer = 0;
    for (; nearer < k_; ++distance) {
      nearer += histogram_[distance];
      histogram_[distance] = 0;
    }
    for (int32_t rest = distance; rest < threshold_; ++rest) histogram_[rest] = 0;
    threshold_ = distance;
  }

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

// Rows of results: distances and indices [rows, k], as hamming_topk returns them.
struct Neighbours {
  static constexpr int64_t kPairBytes = sizeof(int32_t) + sizeof(int64_t);

  int32_t* distances;
  int64_t* indices;
  int64_t k;

  // Marks what follows the first `size` pairs of a row as missing.
  void pad(int64_t row, int64_t size) const {
    for (int64_t i = row * k + size; i < (row + 1) * k; ++i) {
      distances[i] = kNoDistance;
      indices[i] = kNoIndex;
    }
  }
};

// The selections of a tile of queries and their buffers.
class TileSelection {
 public:
  TileSelection(int64_t queries, int64_t k, int64_t bits)
      : selects_(queries),
        distances_(queries * CountingSelect::capacity(k)),
        indices_(queries * CountingSelect::capacity(k)),
        histograms_(queries * (bits + 1)) {
    const int64_t capacity = CountingSelect::capacity(k);
    for (int64_t query = 0; query < queries; ++query) {
      selects_[query] = CountingSelect(k, bits, distances_.data() + query * capacity,
                                       indices_.data() + query * capacity, histograms_.data() + query * (bits + 1));
    }
  }

  static int64_t bytes_per_query(int64_t k, int64_t bits) {
    return CountingSelect::capacity(k) * Neighbours::kPairBytes + (bits + 1) * sizeof(int64_t);
  }

  CountingSelect& operator[](int64_t query) { return selects_[query]; }

  // Writes the rows of `out` from first_row on, one a query.
  void finish(int64_t first_row, const Neighbours& out) {
    for (int64_t query = 0; query < selects_.size(); ++query) {
      const int64_t row = first_row + query;
      out.pad(row, selects_[query].finish(out.distances + row * out.k, out.indices + row * out.k));
    }
  }

 private:
  Scratch<CountingSelect> selects_;
  Scratch<int32_t> distances_;
  Scratch<int64_t> indices_;
  Scratch<int64_t> histograms_;
};

MDPROP_ISA_END
