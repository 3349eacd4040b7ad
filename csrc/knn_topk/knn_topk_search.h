// The search of one group: a filter with a proven rounding bound discards nearly all points at the speed of a matrix
// product; fp64 distances of the few that remain decide. Scores are compared in registers and never stored.
#pragma once

#include "common/parallel.h"
#include "knn_topk/knn_topk_filter.h"
#include "knn_topk/knn_topk_plan.h"

MDPROP_ISA_BEGIN

template <typename T>
class Search {
  using A = acc_t<T>;
  using B = Block<A>;
  static constexpr A kInfinity = std::numeric_limits<A>::infinity();

 public:
  // args: one group's rows; its indices count from first_index.
  Search(const KnnTopkArgs<T>& args, int64_t first_index)
      : args_(args),
        first_index_(first_index),
        plan_(args.num_queries, args.num_points, args.dim, args.k),
        transform_(args),
        panels_(plan_.panels * B::kRows * args.dim),
        squares_(plan_.panels * B::kRows),
        allowances_(plan_.panels * B::kRows),
        thresholds_(plan_.ranges * plan_.panels * B::kRows),
        sizes_(thresholds_.size()),
        lower_(thresholds_.size() * plan_.capacity),
        upper_(lower_.size()),
        index_(lower_.size()) {}

  void run() {
    for (int64_t first = 0; first < args_.num_queries; first += plan_.panels * B::kRows) {
      first_query_ = first;
      num_panels_ = at_most(plan_.panels, divide_up(args_.num_queries - first, B::kRows));
      pack_queries();
      if (plan_.ranges > 1 || plan_.direct) {
        scan_ranges();
      } else {
        scan_blocks();
      }
      finish();
    }
  }

 private:
  // Queries of panel p, of which those beyond the last are zero and take no candidates.
  int64_t rows(int64_t panel) const { return at_most(B::kRows, args_.num_queries - first_query_ - panel * B::kRows); }

  void pack_queries() {
    parallel_for(num_panels_, divide_up(kTaskSteps, 8 * B::kRows * (args_.dim + 1)), [&](int64_t begin, int64_t end) {
      Scratch<A> row(args_.dim);
      for (int64_t slot = begin * B::kRows; slot < end * B::kRows; ++slot) {
        const int64_t query = first_query_ + slot;
        const T* source = args_.queries + query * args_.dim;
        const bool real = query < args_.num_queries;
        const double square = real ? transform_.apply(source, !transform_.bound().euclidean(), row.data()) : 0;
        const bool usable = real && transform_.bound().usable(square);
        A* panel = panels_.data() + slot / B::kRows * B::kRows * args_.dim + slot % B::kRows;
        for (int64_t d = 0; d < args_.dim; ++d) panel[d * B::kRows] = usable ? -row[d] : A(0);
        squares_[slot] = square;
        allowances_[slot] = plan_.direct ? 0
                            : usable     ? static_cast<A>(transform_.bound().allowance(square))
                                         : kInfinity;
        for (int64_t range = 0; range < plan_.ranges; ++range) {
          thresholds_[range * plan_.panels * B::kRows + slot] = kInfinity;
          sizes_[range * plan_.panels * B::kRows + slot] = 0;
        }
      }
    });
  }

  // row: scratch [D]. Places beyond the last point hold zeros.
  void pack_tile(int64_t tile, const PackedTile<A>& packed, A* row) {
    for (int j = 0; j < B::kPoints; ++j) {
      const int64_t point = tile * B::kPoints + j;
      if (point >= args_.num_points) {
        for (int64_t d = 0; d < args_.dim; ++d) packed.values[d * B::kPoints + j] = 0;
        packed.bias[j] = kInfinity;
        continue;
      }
      const FilterBound<A>& bound = transform_.bound();
      const double square = transform_.apply(args_.points + point * args_.dim, args_.metric == KnnMetric::kCosine, row);
      const A reach = static_cast<A>(bound.usable(square) ? bound.reach(square) : NAN);
      packed.bias[j] = bound.usable(square) ? static_cast<A>(bound.bias(square)) : reach;
      packed.width[j] = 2 * reach;
      for (int64_t d = 0; d < args_.dim; ++d) packed.values[d * B::kPoints + j] = row[d];
    }
  }

  void scan_blocks() {
    PackedBlock<A> block(plan_.block_tiles, args_.dim);
    const int64_t tile_steps = B::kPoints * (args_.dim + 8);
    for (int64_t first = 0; first < plan_.tiles; first += plan_.block_tiles) {
      const int64_t count = at_most(plan_.block_tiles, plan_.tiles - first);
      parallel_for(count, divide_up(kTaskSteps, 16 * tile_steps), [&](int64_t begin, int64_t end) {
        Scratch<A> row(args_.dim);
        for (int64_t t = begin; t < end; ++t) pack_tile(first + t, block.tile(t), row.data());
      });
      parallel_for(num_panels_, divide_up(kTaskSteps, B::kRows * count * tile_steps), [&](int64_t begin, int64_t end) {
        Pruner<T> pruner(args_, plan_.k, plan_.capacity);
        for (int64_t panel = begin; panel < end; ++panel) scan_panel(panel, 0, first, count, block, pruner);
      });
    }
  }

  void scan_ranges() {
    parallel_for(plan_.ranges, 1, [&](int64_t begin, int64_t end) {
      PackedBlock<A> block(1, args_.dim);
      Scratch<A> row(args_.dim);
      Pruner<T> pruner(args_, plan_.k, plan_.capacity);
      for (int64_t range = begin; range < end; ++range) {
        const int64_t last = plan_.tiles * (range + 1) / plan_.ranges;
        for (int64_t tile = plan_.tiles * range / plan_.ranges; tile < last; ++tile) {
          if (plan_.direct) {
            measure_tile(range, tile, pruner);
            continue;
          }
          pack_tile(tile, block.tile(0), row.data());
          for (int64_t panel = 0; panel < num_panels_; ++panel) scan_panel(panel, range, tile, 1, block, pruner);
        }
      }
    });
  }

  // The exact distances are the scores: their width is 0.
  void measure_tile(int64_t range, int64_t tile, Pruner<T>& pruner) {
    static constexpr A kNoWidth[B::kPoints] = {};
    const int64_t first_point = tile * B::kPoints;
    const int64_t points = at_most(B::kPoints, args_.num_points - first_point);
    for (int64_t panel = 0; panel < num_panels_; ++panel) {
      const int64_t slot = (range * plan_.panels + panel) * B::kRows;
      alignas(64) A scores[B::kRows][B::kPoints];
      uint32_t bits[B::kRows];
      for (int64_t r = 0; r < rows(panel); ++r) {
        const int64_t query = panel * B::kRows + r;
        const T* row = args_.queries + (first_query_ + query) * args_.dim;
        bits[r] = 0;
        for (int64_t j = 0; j < points; ++j) {
          const T* point = args_.points + (first_point + j) * args_.dim;
          scores[r][j] = round_distance<A>(pair_distance(args_.metric, row, squares_[query], point, args_.dim));
          bits[r] |= static_cast<uint32_t>(!(scores[r][j] > thresholds_[slot + r])) << j;
        }
      }
      collect(slot, panel, first_point, scores, kNoWidth, bits, pruner);
    }
  }

  // block holds tiles first_tile up to first_tile + count.
  void scan_panel(int64_t panel, int64_t range, int64_t first_tile, int64_t count, PackedBlock<A>& block,
                  Pruner<T>& pruner) {
    const int64_t slot = (range * plan_.panels + panel) * B::kRows;
    const A* queries = panels_.data() + panel * B::kRows * args_.dim;
    for (int64_t t = 0; t < count; ++t) {
      const PackedTile<A> tile = block.tile(t);
      typename Simd<A>::Vector sums[B::kRows][B::kVectors];
      uint32_t bits[B::kRows];
      multiply_tile<A>(queries, tile.values, tile.bias, args_.dim, sums);
      if (!compare_tile<A>(sums, thresholds_.data() + slot, bits)) continue;
      alignas(64) A scores[B::kRows][B::kPoints];
      for (int r = 0; r < B::kRows; ++r) {
        for (int v = 0; v < B::kVectors; ++v) Simd<A>::store(&scores[r][v * Simd<A>::kLanes], sums[r][v]);
      }
      collect(slot, panel, (first_tile + t) * B::kPoints, scores, tile.width, bits, pruner);
    }
  }

  [[gnu::noinline]] void collect(int64_t slot, int64_t panel, int64_t first_point,
                                 const A (&scores)[B::kRows][B::kPoints], const A* width,
                                 const uint32_t (&bits)[B::kRows], Pruner<T>& pruner) {
    const int64_t points = at_most(B::kPoints, args_.num_points - first_point);
    const uint32_t real = points == 32 ? ~0u : (1u << points) - 1;
    const int64_t last_row = rows(panel);
    for (int64_t r = 0; r < last_row; ++r) {
      uint32_t left = bits[r] & real;
      if (left == 0) continue;
      CandidateList<A> list = candidates(slot + r);
      for (; left != 0; left &= left - 1) {
        const int j = __builtin_ctz(left);
        list.lower[list.size] = scores[r][j];
        list.upper[list.size] = scores[r][j] + width[j];
        list.index[list.size] = static_cast<int32_t>(first_point + j);
        ++list.size;
      }
      if (list.size > plan_.capacity - B::kPoints) shrink(list, panel * B::kRows + r, pruner);
      thresholds_[slot + r] = list.threshold;
      sizes_[slot + r] = list.size;
    }
  }

  // Makes room for another tile. Bounds usually do; where rounding hides the order, as in all-equal data, distances do.
  void shrink(CandidateList<A>& list, int64_t query, Pruner<T>& pruner) {
    pruner.tighten(list, allowances_[query]);
    if (list.size > plan_.capacity - 2 * B::kPoints) pruner.keep_exact(list, first_query_ + query, squares_[query]);
  }

  CandidateList<A> candidates(int64_t slot) {
    const int64_t first = slot * plan_.capacity;
    return {lower_.data() + first, upper_.data() + first, index_.data() + first, sizes_[slot], thresholds_[slot]};
  }

  void finish() {
    const int64_t queries = at_most(num_panels_ * B::kRows, args_.num_queries - first_query_);
    const int64_t capacity = plan_.ranges * plan_.capacity;
    parallel_for(queries, divide_up(kTaskSteps, (plan_.k + 1) * (4 * args_.dim + 64)), [&](int64_t begin, int64_t end) {
      Scratch<A> lower(capacity), upper(capacity);
      Scratch<int32_t> index(capacity);
      Pruner<T> pruner(args_, plan_.k, capacity);
      for (int64_t query = begin; query < end; ++query) {
        CandidateList<A> all{lower.data(), upper.data(), index.data(), 0, kInfinity};
        for (int64_t range = 0; range < plan_.ranges; ++range) {
          const CandidateList<A> list = candidates(range * plan_.panels * B::kRows + query);
          for (int64_t i = 0; i < list.size; ++i) {
            all.lower[all.size] = list.lower[i];
            all.upper[all.size] = list.upper[i];
            all.index[all.size++] = list.index[i];
          }
        }
        pruner.tighten(all, allowances_[query]);
        write(first_query_ + query, pruner.sorted(all, first_query_ + query, squares_[query]));
      }
    });
  }

  // k <= N, so every list holds k candidates at the end.
  void write(int64_t query, const Neighbour<A>* neighbours) {
    A* distances = args_.distances + query * args_.k;
    int64_t* indices = args_.indices + query * args_.k;
    for (int64_t i = 0; i < args_.k; ++i) {
      distances[i] = i < plan_.k ? neighbours[i].distance : kInfinity;
      indices[i] = i < plan_.k ? first_index_ + neighbours[i].index : kNoNeighbour;
    }
  }

  const KnnTopkArgs<T>& args_;
  const int64_t first_index_;
  const Plan<A> plan_;
  RowTransform<T> transform_;
  Scratch<A> panels_;        // [panels, D, kRows] negated queries
  Scratch<double> squares_;  // [panels * kRows] squared norms of the transformed queries
  Scratch<A> allowances_;    // [panels * kRows]
  Scratch<A> thresholds_;    // [ranges, panels * kRows]
  Scratch<int64_t> sizes_;   // [ranges, panels * kRows]
  Scratch<A> lower_;         // [ranges, panels * kRows, capacity]
  Scratch<A> upper_;         // [ranges, panels * kRows, capacity]
  Scratch<int32_t> index_;   // [ranges, panels * kRows, capacity]
  int64_t first_query_ = 0, num_panels_ = 0;
};

MDPROP_ISA_END
