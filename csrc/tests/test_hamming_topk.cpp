// hamming_topk and hamming_distance against naive loops, and the memory that they take.
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <new>
#include <random>
#include <vector>

#include "common/cpu_isa.h"
#include "hamming_topk/hamming_topk.h"
#include "tests/check.h"
#include "tests/hamming_problem.h"

namespace {

using namespace hamming_problem;

std::atomic<int64_t> scratch_bytes{0}, most_scratch_bytes{0};

}  // namespace

// Kernels take all their memory by the aligned operators (common/scratch.h), and the tests none.
void* operator new(size_t size, std::align_val_t alignment) {
  const size_t step = static_cast<size_t>(alignment);
  void* memory = std::aligned_alloc(step, (size + step - 1) / step * step);
  if (memory == nullptr) throw std::bad_alloc();
  const int64_t bytes = scratch_bytes += static_cast<int64_t>(malloc_usable_size(memory));
  int64_t most = most_scratch_bytes;
  while (most < bytes && !most_scratch_bytes.compare_exchange_weak(most, bytes)) {
  }
  return memory;
}

void operator delete(void* memory, std::align_val_t) noexcept {
  if (memory != nullptr) scratch_bytes -= static_cast<int64_t>(malloc_usable_size(memory));
  std::free(memory);
}

namespace {

Result topk(const Problem& problem, int64_t k) {
  const int64_t size = problem.num_queries() * k;
  Result result{std::vector<int32_t>(size, -7), std::vector<int64_t>(size, -7)};
  mdprop::HammingTopkArgs<uint64_t> args = problem.args(k);
  args.queries = problem.queries.data();
  args.codes = problem.codes.data();
  args.distances = result.distances.data();
  args.indices = result.indices.data();
  if (!problem.query_offsets.empty()) {
    args.query_offsets = problem.query_offsets.data();
    args.point_offsets = problem.point_offsets.data();
  }
  mdprop::hamming_topk_cpu(args);
  return result;
}

void check_equal(const Problem& problem, int64_t k) {
  const Result wanted = naive_topk(problem, k), got = topk(problem, k);
  if (!CHECK(got.distances == wanted.distances && got.indices == wanted.indices)) {
    std::printf("  bits %ld, queries %ld, codes %ld, groups %zu, k %ld\n", static_cast<long>(problem.bits),
                static_cast<long>(problem.num_queries()), static_cast<long>(problem.num_codes()),
                problem.query_offsets.size(), static_cast<long>(k));
  }
}

// Few queries take the popcount scan and many the slices; more than 2^15 codes are cut into parts.
void test_sizes() {
  for (int64_t bits : {1, 3, 12, 33, 48, 63, 64, 65, 96, 128, 129, 200, 256, 259, 1000, 5000}) {
    for (int64_t num_queries : {1, 5, 33}) {
      for (int64_t num_codes : {1, 63, 513, 1100}) {
        for (int64_t k : {1, 10, 600}) {
          check_equal({random_codes(num_queries, bits, 1), random_codes(num_codes, bits, 2), bits}, k);
        }
      }
    }
  }
}

void test_cut_by_codes() {
  for (int64_t bits : {12, 64, 130}) {
    for (int64_t num_queries : {1, 24}) {
      check_equal({random_codes(num_queries, bits, 3), random_codes(70001, bits, 4), bits}, 10);
      check_equal({random_codes(num_queries, bits, 3), random_codes(70001, bits, 4, 50), bits}, 300);
    }
  }
}

void test_cut_by_queries() { check_equal({random_codes(600, 64, 5), random_codes(700, 64, 6), 64}, 5); }

void test_ties() {
  for (int64_t bits : {2, 64, 256}) {
    for (int64_t distinct : {1, 2, 7}) {
      const Codes codes = random_codes(3000, bits, 7, distinct);
      for (int64_t k : {1, 50, 2999, 3001}) {
        check_equal({random_codes(2, bits, 8), codes, bits}, k);
        check_equal({Codes(codes.begin(), codes.begin() + 30 * words_of(bits)), codes, bits}, k);
      }
    }
  }
}

// Every code is nearer than all before it, which refreshes the threshold with each and fills the buffers most.
void test_approaching_codes() {
  const Codes queries(25, ~uint64_t{0});
  Codes codes;
  for (int repeat = 0; repeat < 65; ++repeat) {
    codes.insert(codes.end(), 40, repeat == 0 ? 0 : ~uint64_t{0} >> (64 - repeat));
  }
  for (int64_t k : {1, 39, 41, 500}) check_equal({queries, codes, 64}, k);
}

void test_empty() {
  const Result no_codes = topk({random_codes(3, 64, 1), {}, 64}, 4);
  CHECK(no_codes.distances == std::vector<int32_t>(12, kNoDistance));
  CHECK(no_codes.indices == std::vector<int64_t>(12, kNoIndex));
  CHECK(topk({{}, random_codes(3, 64, 1), 64}, 4).distances.empty());
}

// GroupOffsets that are empty on either side, small, searched by slices and, where few queries see many codes, cut by
// codes.
void test_groups() {
  for (int64_t bits : {12, 64, 130}) {
    for (int64_t k : {1, 10, 900}) {
      check_equal({random_codes(49, bits, 11),
                   random_codes(1011, bits, 12, 300),
                   bits,
                   {0, 3, 3, 43, 44, 49, 49},
                   {0, 700, 709, 1009, 1009, 1011, 1011}},
                  k);
    }
    check_equal({random_codes(30, bits, 13), random_codes(33100, bits, 14), bits, {0, 2, 30}, {0, 33000, 33100}}, 10);
  }
  // So many groups and queries that tasks begin and end inside groups.
  Offsets query_offsets{0}, point_offsets{0};
  std::mt19937_64 random(15);
  for (int group = 0; group < 200; ++group) {
    query_offsets.push_back(query_offsets.back() + random() % 30);
    point_offsets.push_back(point_offsets.back() + random() % 400);
  }
  check_equal({random_codes(query_offsets.back(), 64, 16), random_codes(point_offsets.back(), 64, 17), 64,
               query_offsets, point_offsets},
              5);
  CHECK(topk({{}, {}, 64, {0}, {0}}, 3).indices.empty());
}

void test_distance() {
  for (int64_t bits : {1, 12, 64, 65, 128, 200, 256, 1000}) {
    for (int64_t num_queries : {0, 1, 67}) {
      for (int64_t num_codes : {0, 5, 1029}) {
        const Problem problem{random_codes(num_queries, bits, 18), random_codes(num_codes, bits, 19), bits};
        std::vector<int32_t> wanted, got(num_queries * num_codes, -7);
        for (int64_t pair = 0; pair < num_queries * num_codes; ++pair) {
          wanted.push_back(naive_distance(problem, pair / num_codes, pair % num_codes));
        }
        mdprop::hamming_distance_cpu<uint64_t>(
            {problem.queries.data(), problem.codes.data(), got.data(), num_queries, num_codes, bits});
        CHECK(got == wanted);
      }
    }
  }
}

// What hamming_topk.h promises for two threads, whatever the numbers of queries and codes.
void check_memory(int64_t num_queries, int64_t num_codes, int64_t k, int64_t bits) {
  const Problem problem{random_codes(num_queries, bits, 20), random_codes(num_codes, bits, 21, 1000), bits};
  most_scratch_bytes = 0;
  topk(problem, k);
  const int64_t thread_bytes = std::max(2 * mdprop::kHammingTileBytes, 64 * (k + bits));
  CHECK(scratch_bytes == 0);
  CHECK(most_scratch_bytes > 0);
  CHECK(most_scratch_bytes <= 2 * thread_bytes + mdprop::kHammingMergeBytes);
}

void test_memory() {
  check_memory(511, 600000, 2000, 64);  // unbounded, the parts of a cut by codes would hold 49 MB
  check_memory(40000, 300, 200, 64);    // and the state of all queries at once, 223 MB
  check_memory(4, 200000, 200000, 12);
  check_memory(600, 1000, 1000, 4096);
}

}  // namespace

int main() {
  try {
    mdprop::cpu_isa();
  } catch (const std::exception& error) {
    std::printf("skipped: %s\n", error.what());
    return 77;
  }
  test_sizes();
  test_cut_by_codes();
  test_cut_by_queries();
  test_ties();
  test_approaching_codes();
  test_empty();
  test_groups();
  test_distance();
  test_memory();
  return test_summary();
}
