// Gradient of knn_topk on the CPU. A pair's gradient is a combination of its two rows, so pairs first get their
// weights; then each query sums over its neighbours and each point over the queries that found it, both in the order of
// the pairs.
#include "knn_topk/knn_topk.h"

#include "common/parallel.h"
#include "common/scratch.h"
#include "knn_topk/knn_topk_sums.h"

namespace mdprop::MDPROP_ISA {
namespace {

template <typename T>
class Backward {
  using A = acc_t<T>;

 public:
  explicit Backward(const KnnTopkBackwardArgs<T>& args)
      : args_(args), shift_(is_euclidean(args.metric) ? 1.0 : 0.0), weights_(args.num_queries * args.k) {}

  void run() {
    const int64_t row_grain = 1 + (1 << 15) / (args_.k * (args_.dim + 1));
    parallel_for(args_.num_queries, row_grain, [&](int64_t begin, int64_t end) {
      Scratch<double> sum(args_.dim);
      for (int64_t query = begin; query < end; ++query) query_gradient(query, sum.data());
    });
    points_gradient();
  }

 private:
  PairWeights weights(int64_t pair) const {
    const int64_t query = pair / args_.k;
    const double grad = args_.grad[pair];
    const double distance = args_.distances[pair];
    const T* q = args_.queries + query * args_.dim;
    const T* x = args_.points + args_.indices[pair] * args_.dim;
    double product = 0, query_square = 0, point_square = 0;
    if (args_.metric == KnnMetric::kCosine) {
      product = dot_product(q, x, args_.dim);
      query_square = dot_product(q, q, args_.dim);
      point_square = dot_product(x, x, args_.dim);
    }
    return pair_weights(args_.metric, grad, distance, product, query_square, point_square);
  }

  // sum += across * (other - shift * own) + own_weight * own
  void add(double* MDPROP_RESTRICT sum, const T* MDPROP_RESTRICT own, const T* MDPROP_RESTRICT other, double across,
           double own_weight) const {
    for (int64_t d = 0; d < args_.dim; ++d) {
      const double mine = widen(own[d]), theirs = widen(other[d]);
      sum[d] += across * (theirs - shift_ * mine) + own_weight * mine;
    }
  }

  void write(const double* sum, T* out) const {
    for (int64_t d = 0; d < args_.dim; ++d) out[d] = narrow<T>(static_cast<A>(sum[d]));
  }

  void query_gradient(int64_t query, double* sum) {
    const T* own = args_.queries + query * args_.dim;
    for (int64_t d = 0; d < args_.dim; ++d) sum[d] = 0;
    for (int64_t pair = query * args_.k; pair < (query + 1) * args_.k; ++pair) {
      if (args_.indices[pair] == kNoNeighbour) continue;
      weights_[pair] = weights(pair);
      add(sum, own, args_.points + args_.indices[pair] * args_.dim, weights_[pair].across, weights_[pair].query_own);
    }
    write(sum, args_.grad_queries + query * args_.dim);
  }

  // Counting sort of the pairs by point: starts[i] is where the pairs of point i begin, in increasing order.
  void points_gradient() {
    const int64_t pairs = args_.num_queries * args_.k;
    Scratch<int64_t> starts(args_.num_points + 2), sorted(pairs);
    for (int64_t i = 0; i < args_.num_points + 2; ++i) starts[i] = 0;
    for (int64_t pair = 0; pair < pairs; ++pair) {
      if (args_.indices[pair] != kNoNeighbour) ++starts[args_.indices[pair] + 2];
    }
    for (int64_t i = 2; i < args_.num_points + 2; ++i) starts[i] += starts[i - 1];
    for (int64_t pair = 0; pair < pairs; ++pair) {
      if (args_.indices[pair] != kNoNeighbour) sorted[starts[args_.indices[pair] + 1]++] = pair;
    }
    const int64_t steps = (pairs / (args_.num_points + 1) + 1) * (args_.dim + 1);
    parallel_for(args_.num_points, 1 + (1 << 15) / steps, [&](int64_t begin, int64_t end) {
      Scratch<double> sum(args_.dim);
      for (int64_t point = begin; point < end; ++point) {
        const T* own = args_.points + point * args_.dim;
        for (int64_t d = 0; d < args_.dim; ++d) sum[d] = 0;
        for (int64_t i = starts[point]; i < starts[point + 1]; ++i) {
          const PairWeights& pair = weights_[sorted[i]];
          add(sum.data(), own, args_.queries + sorted[i] / args_.k * args_.dim, pair.across, pair.point_own);
        }
        write(sum.data(), args_.grad_points + point * args_.dim);
      }
    });
  }

  const KnnTopkBackwardArgs<T>& args_;
  const double shift_;
  Scratch<PairWeights> weights_;  // [Q, k]; unset for padding
};

}  // namespace

template <typename T>
void knn_topk_backward(const KnnTopkBackwardArgs<T>& args) {
  Backward<T>(args).run();
}

template void knn_topk_backward<float>(const KnnTopkBackwardArgs<float>&);
template void knn_topk_backward<double>(const KnnTopkBackwardArgs<double>&);
template void knn_topk_backward<BFloat16>(const KnnTopkBackwardArgs<BFloat16>&);
template void knn_topk_backward<Half>(const KnnTopkBackwardArgs<Half>&);

}  // namespace mdprop::MDPROP_ISA
