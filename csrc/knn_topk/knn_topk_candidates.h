// The candidates of one query while points are scanned: a bounded list that drops what k others certainly beat.
#pragma once

#include <cstdint>

#include "common/scratch.h"
#include "common/topk.h"
#include "knn_topk/knn_topk_sums.h"

MDPROP_ISA_BEGIN

// A bound with at least k keys at or below it, and few more than k; by bisection, as it needs not be one of the keys.
template <typename Key>
Key kth_key_bound(const Key* keys, int64_t size, int64_t k) {
  Key low = keys[0], high = keys[0];
  for (int64_t i = 1; i < size; ++i) {
    low = keys[i] < low ? keys[i] : low;
    high = keys[i] > high ? keys[i] : high;
  }
  while (low < high) {
    const Key middle = (low & high) + ((low ^ high) >> 1);  // the mean, rounded down, without overflow
    Key count = 0;
    for (int64_t i = 0; i < size; ++i) count += keys[i] <= middle;
    if (count < k) {
      low = middle + 1;
    } else {
      high = middle;
      if (count <= k + k / 8) break;
    }
  }
  return high;
}

// A list of one query; the arrays are slices of the search's.
template <typename A>
struct CandidateList {
  A* lower;        // [capacity] the filter's a(x), in increasing order of index
  A* upper;        // [capacity] a(x) + 2 reach(x), NaN where unbounded
  int32_t* index;  // [capacity]
  int64_t size;
  A threshold;  // x with a(x) > threshold is excluded; infinite until k candidates with a finite bound came
};

// Shrinks lists; holds the scratch for it, so each thread needs its own.
template <typename T>
class Pruner {
  using A = acc_t<T>;
  using Key = typename Order<A>::Key;

 public:
  Pruner(const KnnTopkArgs<T>& args, int64_t k, int64_t capacity)
      : args_(args), k_(k), keys_(capacity), exact_(capacity), neighbours_(capacity) {}

  // Lowers the threshold to the k-th smallest upper bound and drops what lies above it.
  void tighten(CandidateList<A>& list, A allowance) {
    if (list.size < k_ || k_ == 0) return;
    for (int64_t i = 0; i < list.size; ++i) keys_[i] = Order<A>::key(list.upper[i]);
    const Key bound = kth_key_bound(keys_.data(), list.size, k_);
    // NaN and infinity give no threshold.
    const A threshold = Order<A>::value(bound) + allowance;
    if (threshold < list.threshold) list.threshold = threshold;
    keep(list, [&](int64_t i) { return !(list.lower[i] > list.threshold); });
  }

  // Keeps the k nearest by exact distance.
  void keep_exact(CandidateList<A>& list, int64_t query, double query_square) {
    if (list.size <= k_) return;
    measure(list, query, query_square);
    for (int64_t i = 0; i < list.size; ++i) exact_[i] = neighbours_[i];
    keep_nearest(neighbours_.data(), list.size, k_);
    const Neighbour<A> last = neighbours_[k_ - 1];
    keep(list, [&](int64_t i) { return !Nearer()(last, exact_[i]); });
  }

  // The exact k nearest of the list, in order; at most k of them. Valid until the next call.
  const Neighbour<A>* sorted(const CandidateList<A>& list, int64_t query, double query_square) {
    measure(list, query, query_square);
    const int64_t count = list.size < k_ ? list.size : k_;
    if (count > 0) {
      keep_nearest(neighbours_.data(), list.size, count);
      sort_nearest(neighbours_.data(), count);
    }
    return neighbours_.data();
  }

 private:
  void measure(const CandidateList<A>& list, int64_t query, double query_square) {
    const T* row = args_.queries + query * args_.dim;
    for (int64_t i = 0; i < list.size; ++i) {
      const T* point = args_.points + list.index[i] * args_.dim;
      neighbours_[i] = {round_distance<A>(pair_distance(args_.metric, row, query_square, point, args_.dim)),
                        list.index[i]};
    }
  }

  template <typename Wanted>
  static void keep(CandidateList<A>& list, const Wanted& wanted) {
    int64_t kept = 0;
    for (int64_t i = 0; i < list.size; ++i) {
      const bool stays = wanted(i);
      list.lower[kept] = list.lower[i];
      list.upper[kept] = list.upper[i];
      list.index[kept] = list.index[i];
      kept += stays;
    }
    list.size = kept;
  }

  const KnnTopkArgs<T>& args_;
  int64_t k_;
  Scratch<Key> keys_;
  Scratch<Neighbour<A>> exact_, neighbours_;
};

MDPROP_ISA_END
