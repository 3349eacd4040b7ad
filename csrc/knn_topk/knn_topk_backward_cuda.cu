// Gradient of knn_topk on the card, in the order of additions of the CPU: pairs first get their weights; then each
// query sums over its neighbours, and each point over the queries that found it. Which these are is counted and filed
// by integer atomics, in any order; sorting the pairs of each point then makes the order of its sum that of the pairs.
#include "knn_topk/knn_topk.h"

#include "common/launch.h"
#include "knn_topk/knn_topk_cuda_plan.h"
#include "knn_topk/knn_topk_exact.cuh"
#include "knn_topk/knn_topk_select.cuh"

namespace mdprop {
namespace {

constexpr int kPairThreads = 256;
constexpr int kScanThreads = 256;
constexpr int kScanValues = 16;  // of a thread at a time
constexpr int kPointThreads = 128;
constexpr int kSortedPairs = 2048;  // of one point, in shared memory
constexpr int64_t kMostBlocks = int64_t{1} << 14;

using Counter = unsigned long long;

template <typename T>
struct BackwardState {
  KnnTopkBackwardArgs<T> args;
  KnnBackwardSpace space;
};

// Eight lanes a pair: its weights, and one more pair for its point.
template <typename T>
__global__ void __launch_bounds__(kPairThreads) knn_weights_kernel(const __grid_constant__ BackwardState<T> state) {
  const KnnTopkBackwardArgs<T>& args = state.args;
  const int64_t pairs = args.num_queries * args.k;
  const int64_t given = (int64_t{blockIdx.x} * kPairThreads + threadIdx.x) / kSumLanes;
  const int64_t pair = given < pairs ? given : pairs - 1;  // all lanes must take part in the sums
  const int64_t index = args.indices[pair];
  device_check(index >= kNoNeighbour && index < args.num_points, "knn_topk_backward: indices must be in [-1, N)");
  const T* query = args.queries + pair / args.k * args.dim;
  const T* point = args.points + (index < 0 ? 0 : index) * args.dim;
  double product = 0, query_square = 0, point_square = 0;
  if (args.metric == KnnMetric::kCosine) {
    for (int64_t d = sum_lane(); d < args.dim && index >= 0; d += kSumLanes) {
      const double q = widen(query[d]), x = widen(point[d]);
      product += q * x;
      query_square += q * q;
      point_square += x * x;
    }
    product = sum_of_lanes(product);
    query_square = sum_of_lanes(query_square);
    point_square = sum_of_lanes(point_square);
  }
  if (sum_lane() > 0 || given >= pairs || index < 0) return;
  state.space.weights[pair] =
      pair_weights(args.metric, args.grad[pair], args.distances[pair], product, query_square, point_square);
  atomicAdd(reinterpret_cast<Counter*>(&state.space.starts[index + 2]), Counter{1});
}

// What a pair adds to one feature of one of its rows: across * (theirs - shift * mine) + own * mine.
__device__ __forceinline__ double pair_term(bool shift, double across, double own, double mine, double theirs) {
  return across * (theirs - (shift ? 1.0 : 0.0) * mine) + own * mine;
}

// One thread a feature of a query.
template <typename T>
__global__ void __launch_bounds__(kPairThreads)
    knn_grad_queries_kernel(const __grid_constant__ BackwardState<T> state) {
  const KnnTopkBackwardArgs<T>& args = state.args;
  const int64_t place = int64_t{blockIdx.x} * kPairThreads + threadIdx.x;
  if (place >= args.num_queries * args.dim) return;
  const int64_t query = place / args.dim, d = place % args.dim;
  const bool shift = is_euclidean(args.metric);
  const double mine = widen(args.queries[place]);
  double sum = 0;
  for (int64_t pair = query * args.k; pair < (query + 1) * args.k; ++pair) {
    const int64_t index = args.indices[pair];
    if (index < 0) continue;
    const PairWeights& weights = state.space.weights[pair];
    sum += pair_term(shift, weights.across, weights.query_own, mine, widen(args.points[index * args.dim + d]));
  }
  args.grad_queries[place] = narrow<T>(static_cast<acc_t<T>>(sum));
}

// Replaces counts by the sums up to and including each. One block, 16 neighbouring values a thread.
__global__ void __launch_bounds__(kScanThreads) knn_starts_kernel(int64_t* starts, int64_t count) {
  int64_t done = 0;
  for (int64_t first = 0; first < count; first += kScanThreads * kScanValues) {
    const int64_t place = first + int64_t{threadIdx.x} * kScanValues, earlier = done;
    int64_t sums[kScanValues], own = 0;
    for (int i = 0; i < kScanValues; ++i) sums[i] = own += place + i < count ? starts[place + i] : 0;
    const int64_t before = earlier + sum_before<kScanThreads>(own, &done);
    for (int i = 0; i < kScanValues; ++i) {
      if (place + i < count) starts[place + i] = before + sums[i];
    }
  }
}

// One thread a pair. Afterwards the pairs of point i lie from starts[i] to starts[i + 1].
__global__ void __launch_bounds__(kPairThreads)
    knn_file_pairs_kernel(const int64_t* indices, int64_t pairs, int64_t* starts, int64_t* filed) {
  const int64_t pair = int64_t{blockIdx.x} * kPairThreads + threadIdx.x;
  if (pair >= pairs || indices[pair] < 0) return;
  filed[atomicAdd(reinterpret_cast<Counter*>(&starts[indices[pair] + 1]), Counter{1})] = pair;
}

// One block a point at a time: sorts its pairs, in shared memory where they fit, and sums; a thread has a feature.
template <typename T>
__global__ void __launch_bounds__(kPointThreads)
    knn_grad_points_kernel(const __grid_constant__ BackwardState<T> state) {
  struct Shared {
    int64_t pairs[kSortedPairs];
  };
  auto& shared = shared_storage<Shared>();
  const KnnTopkBackwardArgs<T>& args = state.args;
  const bool shift = is_euclidean(args.metric);
  for (int64_t point = blockIdx.x; point < args.num_points; point += gridDim.x) {
    const int64_t start = state.space.starts[point];
    const auto count = static_cast<int>(state.space.starts[point + 1] - start);
    int64_t* pairs = state.space.filed + start;
    if (count <= kSortedPairs) {
      for (int i = threadIdx.x; i < count; i += kPointThreads) shared.pairs[i] = pairs[i];
      pairs = shared.pairs;
      __syncthreads();
    }
    sort_block(pairs, count);
    for (int64_t d = threadIdx.x; d < args.dim; d += kPointThreads) {
      const double mine = widen(args.points[point * args.dim + d]);
      double sum = 0;
      for (int i = 0; i < count; ++i) {
        const PairWeights& weights = state.space.weights[pairs[i]];
        const double theirs = widen(args.queries[pairs[i] / args.k * args.dim + d]);
        sum += pair_term(shift, weights.across, weights.point_own, mine, theirs);
      }
      args.grad_points[point * args.dim + d] = narrow<T>(static_cast<acc_t<T>>(sum));
    }
    __syncthreads();
  }
}

}  // namespace

template <typename T>
void knn_topk_backward_cuda(const KnnTopkBackwardArgs<T>& args, void* stream) {
  const BackwardState<T> state{args, knn_backward_space(args, args.workspace)};
  const int64_t pairs = args.num_queries * args.k;
  const auto blocks = [](int64_t count, int64_t each) { return static_cast<unsigned>((count + each - 1) / each); };
  cuda_zero(state.space.starts, (args.num_points + 2) * sizeof(int64_t), stream);
  if (pairs > 0) {
    launch<knn_weights_kernel<T>>(blocks(pairs * kSumLanes, kPairThreads), kPairThreads, 0, stream, state);
  }
  if (args.num_queries * args.dim > 0) {
    launch<knn_grad_queries_kernel<T>>(blocks(args.num_queries * args.dim, kPairThreads), kPairThreads, 0, stream,
                                       state);
  }
  if (args.num_points == 0) return;
  launch<knn_starts_kernel>(1, kScanThreads, 0, stream, state.space.starts, args.num_points + 2);
  if (pairs > 0) {
    launch<knn_file_pairs_kernel>(blocks(pairs, kPairThreads), kPairThreads, 0, stream, args.indices, pairs,
                                  state.space.starts, state.space.filed);
  }
  launch<knn_grad_points_kernel<T>>(
      static_cast<unsigned>(args.num_points < kMostBlocks ? args.num_points : kMostBlocks), kPointThreads, 0, stream,
      state);
}

template void knn_topk_backward_cuda<float>(const KnnTopkBackwardArgs<float>&, void*);
template void knn_topk_backward_cuda<double>(const KnnTopkBackwardArgs<double>&, void*);
template void knn_topk_backward_cuda<BFloat16>(const KnnTopkBackwardArgs<BFloat16>&, void*);
template void knn_topk_backward_cuda<Half>(const KnnTopkBackwardArgs<Half>&, void*);

}  // namespace mdprop
