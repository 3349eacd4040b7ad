// The CUDA kernels of knn_topk, emulated: the bits of a plain double loop and of the CPU kernel are asked for.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "check.h"
#include "knn_topk/knn_topk_cuda_plan.h"
#include "knn_topk_cases.h"
#include "tests/device_buffer.h"

namespace {

using namespace knn_topk_cases;

// How many queries of the last search had to be measured directly because their certificate failed.
int uncertain = 0;

template <typename T>
Result<T> search_cuda(const Problem<T>& problem, int64_t k, KnnMetric metric,
                      const Groups& groups = {nullptr, nullptr, 1}, int64_t scratch = int64_t{1} << 28) {
  const DeviceBuffer<T> queries(problem.queries), points(problem.points);
  const DeviceBuffer<mdprop::acc_t<T>> distances(problem.num_queries * k);
  const DeviceBuffer<int64_t> indices(problem.num_queries * k);
  mdprop::KnnTopkArgs<T> args{queries.data(),
                              points.data(),
                              distances.data(),
                              indices.data(),
                              problem.num_queries,
                              problem.num_points,
                              problem.dim,
                              k,
                              metric,
                              groups.query_offsets,
                              groups.point_offsets,
                              groups.count};
  args.list_bytes = scratch;
  args.packed_bytes = scratch / 8;
  const DeviceBuffer<char> workspace(mdprop::knn_topk_workspace(args));
  args.workspace = workspace.data();
  mdprop::knn_topk_cuda<T>(args, nullptr);
  const mdprop::KnnCudaPlan plan = mdprop::knn_cuda_plan(args);
  const int* listed_count =
      mdprop::knn_cuda_buffers(plan, args.dim, sizeof(T) == sizeof(double), workspace.data()).listed_count;
  uncertain = plan.direct ? 0 : *listed_count;
  return {distances.values(), indices.values()};
}

// Equal bits, but for the payload of NaN.
template <typename T>
bool same(const Result<T>& a, const Result<T>& b) {
  for (size_t i = 0; i < a.distances.size(); ++i) {
    const auto x = a.distances[i], y = b.distances[i];
    if (a.indices[i] != b.indices[i]) return false;
    if (std::isnan(x) ? !std::isnan(y) : std::memcmp(&x, &y, sizeof(x)) != 0) return false;
  }
  return true;
}

template <typename T>
void check_search(const Problem<T>& problem, int64_t k, KnnMetric metric, const char* name,
                  const Groups& groups = {nullptr, nullptr, 1}) {
  const Result<T> expected = search(problem, k, metric, groups);
  if (!CHECK(same(search_cuda(problem, k, metric, groups), expected))) {
    std::printf("  %s, metric %d, Q %d, N %d, D %d, k %d, %d-byte values\n", name, static_cast<int>(metric),
                static_cast<int>(problem.num_queries), static_cast<int>(problem.num_points),
                static_cast<int>(problem.dim), static_cast<int>(k), static_cast<int>(sizeof(T)));
  }
}

bool is_direct(int64_t num_queries, int64_t num_points, int64_t dim) {
  mdprop::KnnTopkArgs<float> args{};
  args.num_queries = num_queries;
  args.num_points = num_points;
  args.dim = dim;
  args.k = 1;
  return mdprop::knn_cuda_plan(args).direct;
}

// Below kKnnDirectSteps, and all of fp64.
template <typename T>
void test_direct() {
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  const auto gaussian = [&](int64_t, int64_t) { return normal(random); };
  const auto ties = [&](int64_t, int64_t) { return static_cast<int>(random() % 3) - 1; };
  const auto special = [&](int64_t row, int64_t i) { return row % 3 == 0 && i % 5 == 2 ? kInfinity : normal(random); };
  for (KnnMetric metric : kMetrics) {
    check_search(make_problem<T>(21, 150, 37, gaussian), 10, metric, "direct");
    check_search(make_problem<T>(17, 200, 5, ties), 60, metric, "ties");
    check_search(make_problem<T>(3, 70, 5, special), 70, metric, "special values");
  }
  check_search(make_problem<T>(2, 2100, 3, gaussian), 5, KnnMetric::kEuclidean, "two ranges");
  check_search(make_problem<T>(1, 900, 2, gaussian), 700, KnnMetric::kDot, "many neighbours");
  check_search(make_problem<T>(3, 4, 0, gaussian), 2, KnnMetric::kCosine, "no features");
  check_search(make_problem<T>(3, 0, 4, gaussian), 2, KnnMetric::kCosine, "no points");
  check_search(make_problem<T>(5, 9, 3, gaussian), 12, KnnMetric::kSquaredEuclidean, "too few points");
}

template <typename T>
void test_filter() {
  std::mt19937 random(2);
  std::normal_distribution<double> normal;
  const auto gaussian = [&](int64_t, int64_t) { return normal(random); };
  CHECK(!is_direct(40, 900, 64));
  for (KnnMetric metric : kMetrics) {
    check_search(make_problem<T>(40, 900, 64, gaussian), 10, metric, "filter");
    CHECK(uncertain == 0);
  }
  const auto nan = [&](int64_t row, int64_t i) {
    return (row == -3 || (row >= 0 && row % 2 == 0)) && i % 70 == 4 ? static_cast<double>(NAN) : normal(random);
  };
  check_search(make_problem<T>(70, 500, 70, nan), 10, KnnMetric::kSquaredEuclidean, "NaN");
  CHECK(uncertain == 1);  // the query with a NaN
  const auto infinite = [&](int64_t row, int64_t i) {
    return row % 9 == 0 && i % 64 == 4 ? kInfinity : normal(random);
  };
  check_search(make_problem<T>(70, 500, 70, infinite), 10, KnnMetric::kDot, "infinities");
  CHECK(uncertain > 0);
  // More points within the error of bf16 than a list holds: only distances can tell which are nearest.
  const auto near = [&](int64_t row, int64_t) { return row < 0 ? normal(random) : 1 + 0x1p-7 * (random() % 2); };
  for (KnnMetric metric : {KnnMetric::kEuclidean, KnnMetric::kCosine}) {
    check_search(make_problem<T>(40, 900, 64, near), 10, metric, "nearly equal points");
  }
  check_search(make_problem<T>(40, 900, 64, [&](int64_t row, int64_t) { return row % 2; }), 10, KnnMetric::kDot,
               "ties");
  CHECK(uncertain == 40);
}

// Queries and points in chunks, and more work than blocks.
void test_chunks() {
  std::mt19937 random(8);
  std::normal_distribution<double> normal;
  const auto gaussian = [&](int64_t, int64_t) { return normal(random); };
  const std::vector<int64_t> query_offsets{0, 50, 120, 150}, point_offsets{0, 300, 310, 520};
  const Groups groups{query_offsets.data(), point_offsets.data(), 3}, one{nullptr, nullptr, 1};
  for (KnnMetric metric : {KnnMetric::kEuclidean, KnnMetric::kDot}) {
    const auto problem = make_problem<float>(150, 520, 40, gaussian);
    CHECK(same(search_cuda(problem, 7, metric, one, 1 << 17), search(problem, 7, metric)));
    CHECK(same(search_cuda(problem, 7, metric, groups, 1 << 17), search(problem, 7, metric, groups)));
    const auto exact = make_problem<double>(70, 150, 5, gaussian);
    CHECK(same(search_cuda(exact, 7, metric, one, 1 << 16), search(exact, 7, metric)));
  }
  check_search(make_problem<float>(16500, 7, 1, gaussian), 2, KnnMetric::kEuclidean, "more queries than blocks");
}

// Norms from one end of the exponents to the other.
void test_scales() {
  std::mt19937 random(5);
  std::normal_distribution<double> normal;
  for (double scale : {1e-42, 1e-25, 1e12, 1e37}) {
    for (KnnMetric metric : {KnnMetric::kEuclidean, KnnMetric::kCosine, KnnMetric::kDot}) {
      const auto value = [&](int64_t row, int64_t) { return normal(random) * (row % 3 == 0 ? scale : 1); };
      check_search(make_problem<float>(40, 600, 90, value), 4, metric, "mixed scales");
    }
    const auto value = [&](int64_t, int64_t) { return normal(random) * scale; };
    check_search(make_problem<float>(40, 600, 90, value), 4, KnnMetric::kEuclidean, "scaled");
  }
}

void test_shapes() {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  const auto gaussian = [&](int64_t, int64_t) { return normal(random); };
  // Blocks of 128 queries; several ranges of points; queries that do not fit the shared memory at once.
  check_search(make_problem<float>(1030, 260, 9, gaussian), 4, KnnMetric::kSquaredEuclidean, "many queries");
  check_search(make_problem<float>(33, 4200, 18, gaussian), 6, KnnMetric::kCosine, "ranges");
  check_search(make_problem<float>(20, 300, 400, gaussian), 5, KnnMetric::kDot, "wide rows");
  check_search(make_problem<float>(30, 1500, 48, gaussian), 600, KnnMetric::kSquaredEuclidean, "many neighbours");
}

template <typename T>
void test_groups(int64_t scale, int64_t dim) {
  std::mt19937 random(4);
  std::normal_distribution<double> normal;
  const std::vector<int64_t> query_offsets{0, 5, 5, 8, 9, 9, 22, 23 * scale};
  const std::vector<int64_t> point_offsets{0, 40, 47, 47, 49, 49, 139 * scale, 439 * scale};
  const Groups groups{query_offsets.data(), point_offsets.data(), 7};
  for (KnnMetric metric : {KnnMetric::kSquaredEuclidean, KnnMetric::kCosine}) {
    check_search(make_problem<T>(query_offsets.back(), point_offsets.back(), dim,
                                 [&](int64_t, int64_t) { return normal(random); }),
                 6, metric, "groups", groups);
  }
}

// Scratch memory is bounded whatever the number of queries and points.
template <typename T>
void test_workspace() {
  mdprop::KnnTopkArgs<T> args{};
  for (int64_t num_queries : {1, 1000, 1 << 30}) {
    for (int64_t num_points : {0, 1000, INT32_MAX}) {
      for (int64_t dim : {0, 1, 128, 1 << 14, 1 << 20}) {
        for (int64_t k : {1, 100, 2048, 50000}) {
          args.num_queries = num_queries, args.num_points = num_points, args.dim = dim, args.k = k;
          CHECK(mdprop::knn_topk_workspace(args) <= int64_t{600} << 20);
        }
      }
    }
  }
}

template <typename T>
void check_backward(const Problem<T>& problem, int64_t k, KnnMetric metric) {
  using Acc = mdprop::acc_t<T>;
  const Result<T> found = search(problem, k, metric);
  std::mt19937 random(6);
  std::vector<Acc> weights(problem.num_queries * k);
  for (Acc& weight : weights) weight = static_cast<Acc>(random() % 1000) / 100 - 5;
  std::vector<T> grad_queries(problem.queries.size()), grad_points(problem.points.size());
  mdprop::KnnTopkBackwardArgs<T> args{weights.data(),
                                      problem.queries.data(),
                                      problem.points.data(),
                                      found.distances.data(),
                                      found.indices.data(),
                                      grad_queries.data(),
                                      grad_points.data(),
                                      problem.num_queries,
                                      problem.num_points,
                                      problem.dim,
                                      k,
                                      metric};
  mdprop::knn_topk_backward_cpu<T>(args);
  const DeviceBuffer<T> queries_cuda(problem.queries.size()), points_cuda(problem.points.size());
  const DeviceBuffer<char> workspace(mdprop::knn_topk_backward_workspace(args));
  args.grad_queries = queries_cuda.data();
  args.grad_points = points_cuda.data();
  args.workspace = workspace.data();
  mdprop::knn_topk_backward_cuda<T>(args, nullptr);
  const auto same_bytes = [](const DeviceBuffer<T>& a, const std::vector<T>& b) {
    return b.empty() || std::memcmp(a.data(), b.data(), b.size() * sizeof(T)) == 0;
  };
  CHECK(same_bytes(queries_cuda, grad_queries));
  CHECK(same_bytes(points_cuda, grad_points));
}

template <typename T>
void test_backward() {
  std::mt19937 random(7);
  std::normal_distribution<double> normal;
  const auto gaussian = [&](int64_t, int64_t) { return normal(random); };
  for (KnnMetric metric : kMetrics) {
    check_backward(make_problem<T>(29, 60, 11, gaussian), 7, metric);
    check_backward(make_problem<T>(4, 3, 5, gaussian), 5, metric);  // padding
  }
  check_backward(make_problem<T>(3, 4500, 2, gaussian), 3, KnnMetric::kDot);     // several rounds of the prefix sum
  check_backward(make_problem<T>(2100, 1, 1, gaussian), 1, KnnMetric::kCosine);  // too many pairs for shared memory
  if (sizeof(T) == 4)
    check_backward(make_problem<T>(1, 16500, 1, gaussian), 1, KnnMetric::kDot);  // more points than blocks
  check_backward(make_problem<T>(0, 5, 3, gaussian), 2, KnnMetric::kSquaredEuclidean);
  check_backward(make_problem<T>(5, 0, 3, gaussian), 2, KnnMetric::kSquaredEuclidean);
}

}  // namespace

int main() {
  test_direct<float>();
  test_direct<double>();
  test_direct<BFloat16>();
  test_direct<Half>();
  test_filter<float>();
  test_filter<BFloat16>();
  test_filter<Half>();
  test_shapes();
  test_scales();
  test_chunks();
  test_groups<float>(1, 7);
  test_groups<double>(1, 7);
  test_groups<float>(3, 40);
  test_workspace<float>();
  test_workspace<double>();
  test_backward<float>();
  test_backward<double>();
  test_backward<BFloat16>();
  test_backward<Half>();
  return test_summary();
}
