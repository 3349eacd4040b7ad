// Ragged groups equal one search a group; and scratch memory stays within its bound whatever the number of rows.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <random>
#include <vector>

#include "check.h"
#include "knn_topk_cases.h"

namespace {

std::atomic<int64_t> held{0}, peak{0};

// Kernels take all their memory by aligned new, so replacing it sees every byte. The size stands before the block.
constexpr size_t kHeader = 64;

}  // namespace

void* operator new(size_t size, std::align_val_t) {
  auto* block = static_cast<char*>(std::aligned_alloc(kHeader, (size + 2 * kHeader - 1) / kHeader * kHeader));
  if (block == nullptr) throw std::bad_alloc();
  *reinterpret_cast<int64_t*>(block) = static_cast<int64_t>(size);
  const int64_t now = held += static_cast<int64_t>(size);
  for (int64_t before = peak; before < now && !peak.compare_exchange_weak(before, now);) continue;
  return block + kHeader;
}

void operator delete(void* pointer, std::align_val_t) noexcept {
  char* block = static_cast<char*>(pointer) - kHeader;
  held -= *reinterpret_cast<int64_t*>(block);
  std::free(block);
}

namespace {

using namespace knn_topk_cases;

struct GroupSize {
  int64_t queries, points;
};

template <typename T>
void check_groups(const std::vector<GroupSize>& sizes, int64_t dim, int64_t k, KnnMetric metric) {
  std::vector<int64_t> query_offsets{0}, point_offsets{0};
  for (const GroupSize& size : sizes) {
    query_offsets.push_back(query_offsets.back() + size.queries);
    point_offsets.push_back(point_offsets.back() + size.points);
  }
  std::mt19937 random(6);
  // Small integers beside the others, so that groups have ties of their own.
  std::normal_distribution<double> normal;
  const Problem<T> problem = make_problem<T>(
      query_offsets.back(), point_offsets.back(), dim,
      [&](int64_t row, int64_t) { return row % 2 ? normal(random) : static_cast<double>(random() % 3); });
  const Groups groups{query_offsets.data(), point_offsets.data(), static_cast<int64_t>(sizes.size())};
  const Result<T> result = search(problem, k, metric, groups);
  for (size_t g = 0; g < sizes.size(); ++g) {
    const auto rows = [&](const std::vector<T>& all, const std::vector<int64_t>& offsets) {
      return std::vector<T>(all.begin() + offsets[g] * dim, all.begin() + offsets[g + 1] * dim);
    };
    const Problem<T> part{rows(problem.queries, query_offsets), rows(problem.points, point_offsets), sizes[g].queries,
                          sizes[g].points, dim};
    Result<T> expected = search(part, k, metric);
    for (int64_t& index : expected.indices) index += index < 0 ? 0 : point_offsets[g];
    const int64_t first = query_offsets[g] * k, count = sizes[g].queries * k;
    CHECK(std::equal(expected.indices.begin(), expected.indices.end(), result.indices.begin() + first));
    CHECK(count == 0 || std::memcmp(expected.distances.data(), result.distances.data() + first,
                                    count * sizeof(expected.distances[0])) == 0);
  }
}

template <typename T>
void test_groups() {
  for (KnnMetric metric : kMetrics) {
    // Empty on either side and on both, fewer points than k, single rows.
    check_groups<T>({{5, 40}, {0, 7}, {3, 0}, {1, 2}, {0, 0}, {13, 90}, {1, 300}}, 7, 6, metric);
    check_groups<T>({}, 7, 6, metric);
  }
  std::vector<GroupSize> many;
  for (int64_t g = 0; g < 150; ++g) many.push_back({g * 7 % 11, g * 5 % 37});
  check_groups<T>(many, 9, 4, KnnMetric::kSquaredEuclidean);
  // The middle one is worth all threads.
  check_groups<T>({{2, 30}, {130, 9000}, {7, 50}}, 8, 9, KnnMetric::kCosine);
}

// The most memory held at once during a search.
int64_t scratch_bytes(int64_t num_queries, int64_t num_points, int64_t dim, int64_t k) {
  const Problem<float> problem = make_problem<float>(num_queries, num_points, dim, [](int64_t row, int64_t i) {
    return static_cast<double>((row * 7919 + i * 104729) % 65537);
  });
  peak = held.load();
  const int64_t before = held;
  search(problem, k, KnnMetric::kSquaredEuclidean);
  return peak - before;
}

void test_memory() {
  // Threads do not always hold their lists at one time.
  constexpr int64_t kByChance = 1 << 20;
  // Points stream: twice as many need no more. One query is measured directly, four in ranges, a hundred in blocks.
  CHECK(scratch_bytes(1, 1200000, 1, 10) <= scratch_bytes(1, 600000, 1, 10) + kByChance);
  CHECK(scratch_bytes(4, 1200000, 1, 10) <= scratch_bytes(4, 600000, 1, 10) + kByChance);
  CHECK(scratch_bytes(100, 200000, 1, 10) <= scratch_bytes(100, 50000, 1, 10) + (1 << 18));
  // Queries pass in chunks, so that more of them need little more than a full chunk.
  CHECK(scratch_bytes(60000, 100, 2, 90) <= scratch_bytes(18000, 100, 2, 90) + kByChance);
  // Wide rows: few queries at a time. Many neighbours: the lists of one panel, and a copy for each thread.
  CHECK(scratch_bytes(100, 40, 300000, 3) <= int64_t{1} << 28);
  CHECK(scratch_bytes(30, 300000, 1, 150000) <= int64_t{1} << 28);
}

}  // namespace

int main() {
  test_groups<float>();
  test_groups<double>();
  test_groups<BFloat16>();
  test_groups<Half>();
  test_memory();
  return test_summary();
}
