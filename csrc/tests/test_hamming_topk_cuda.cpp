// hamming_topk and hamming_distance as CUDA kernels: against the CPU kernels and naive loops.
#include <algorithm>
#include <cstdint>
#include <exception>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "hamming_topk/hamming_topk.h"
#include "hamming_topk/hamming_topk_plan.h"
#include "tests/check.h"
#include "tests/device_buffer.h"
#include "tests/hamming_problem.h"

namespace {

using namespace hamming_problem;

// The words behind `shift` words that nobody may read, as a view into a larger tensor has them: 1 leaves rows of an
// even number of words without alignment to 16 bytes.
struct Rows {
  Rows(const Codes& codes, int64_t shift) : buffer(static_cast<int64_t>(codes.size()) + shift), shift(shift) {
    std::copy(codes.begin(), codes.end(), buffer.data() + shift);
  }
  const uint64_t* data() const { return buffer.data() + shift; }

  DeviceBuffer<uint64_t> buffer;
  int64_t shift;
};

Result topk(const Problem& problem, int64_t k, int64_t shift = 0, std::optional<int64_t> partial_bytes = std::nullopt) {
  const Rows queries(problem.queries, shift), codes(problem.codes, shift);
  const DeviceBuffer<int64_t> query_offsets(problem.query_offsets), point_offsets(problem.point_offsets);
  DeviceBuffer<int32_t> distances(problem.num_queries() * k);
  DeviceBuffer<int64_t> indices(problem.num_queries() * k);
  mdprop::HammingTopkArgs<uint64_t> args = problem.args(k);
  args.queries = queries.data();
  args.codes = codes.data();
  args.distances = distances.data();
  args.indices = indices.data();
  if (!problem.query_offsets.empty()) {
    args.query_offsets = query_offsets.data();
    args.point_offsets = point_offsets.data();
  }
  if (partial_bytes.has_value()) args.partial_bytes = *partial_bytes;
  const DeviceBuffer<unsigned char> workspace(mdprop::hamming_topk_workspace(args));
  args.workspace = workspace.data();
  mdprop::hamming_topk_cuda(args, nullptr);
  CHECK(distances.first_unwritten() == -1);
  return {distances.values(), indices.values()};
}

Result topk_cpu(const Problem& problem, int64_t k) {
  Result result{std::vector<int32_t>(problem.num_queries() * k), std::vector<int64_t>(problem.num_queries() * k)};
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

bool same(const Result& a, const Result& b) { return a.distances == b.distances && a.indices == b.indices; }

void check_equal(const Problem& problem, int64_t k, int64_t shift = 0,
                 std::optional<int64_t> partial_bytes = std::nullopt) {
  const Result got = topk(problem, k, shift, partial_bytes);
  if (!CHECK(same(got, naive_topk(problem, k))) || !CHECK(same(got, topk_cpu(problem, k)))) {
    std::printf("  bits %ld, queries %ld, codes %ld, groups %zu, k %ld, shift %ld\n", static_cast<long>(problem.bits),
                static_cast<long>(problem.num_queries()), static_cast<long>(problem.num_codes()),
                problem.query_offsets.size(), static_cast<long>(k), static_cast<long>(shift));
  }
}

Problem random_problem(int64_t num_queries, int64_t num_codes, int64_t bits, int64_t distinct = 0) {
  return {random_codes(num_queries, bits, 1, distinct), random_codes(num_codes, bits, 2, distinct), bits};
}

// One word, two words, any even and any odd number of words, aligned to 16 bytes or not; tiles that are not full.
void test_code_lengths() {
  for (int64_t bits : {1, 12, 63, 64, 65, 128, 130, 192, 250, 256, 700, 5000}) {
    for (int64_t shift : {0, 1}) {
      check_equal(random_problem(19, 70, bits), 5, shift);
      check_equal(random_problem(1, 1, bits), 2, shift);
    }
  }
  check_equal(random_problem(3, 2100, 64), 30, 1);
  check_equal(random_problem(3, 2100, 256), 30, 1);
}

// Few neighbours are merged by a warp, more by a block; beyond 2,048 a pass goes on where the last one ended.
void test_numbers_of_neighbours() {
  for (int64_t k : {1, 64, 65, 600, 1500}) check_equal(random_problem(3, 1400, 64), k);
  check_equal(random_problem(2, 5000, 64, 40), 2048);
  check_equal(random_problem(2, 5000, 64, 40), 4500);
  check_equal(random_problem(1, 2060, 12), 2100);
}

// Splits of the codes, whose results are merged; and so little memory for them that queries are searched in chunks.
void test_splits_and_chunks() {
  for (int64_t k : {7, 100}) {
    const Problem problem = random_problem(40, 9000, 64, 900);
    CHECK(mdprop::plan_hamming_topk(problem.args(k)).splits > 1);
    check_equal(problem, k);
  }
  const Problem problem = random_problem(50, 100, 64);
  mdprop::HammingTopkArgs<uint64_t> args = problem.args(3);
  args.partial_bytes = 16 * 3 * 8;
  CHECK(mdprop::plan_hamming_topk(args).chunk_queries == 16);
  check_equal(problem, 3, 0, args.partial_bytes);
  Problem grouped = problem;
  grouped.query_offsets = {0, 10, 20, 45, 50};
  grouped.point_offsets = {0, 30, 30, 95, 100};
  check_equal(grouped, 3, 0, args.partial_bytes);
}

void test_groups() {
  for (int64_t k : {1, 10, 900}) {
    check_equal({random_codes(49, 64, 11),
                 random_codes(1011, 64, 12, 300),
                 64,
                 {0, 3, 3, 43, 44, 49, 49},
                 {0, 700, 709, 1009, 1009, 1011, 1011}},
                k);
  }
  check_equal({random_codes(12, 128, 13), random_codes(9100, 128, 14), 128, {0, 2, 12}, {0, 9000, 9100}}, 10);
  Offsets query_offsets{0}, point_offsets{0};  // more groups than threads that count their work
  std::mt19937_64 random(15);
  for (int group = 0; group < 300; ++group) {
    query_offsets.push_back(query_offsets.back() + static_cast<int64_t>(random() % 3));
    point_offsets.push_back(point_offsets.back() + static_cast<int64_t>(random() % 9));
  }
  check_equal({random_codes(query_offsets.back(), 64, 16), random_codes(point_offsets.back(), 64, 17), 64,
               query_offsets, point_offsets},
              5);
}

// Ties everywhere; and codes that come ever nearer, each of which passes every threshold.
void test_ties_and_approaching_codes() {
  for (int64_t distinct : {1, 2, 7}) {
    for (int64_t k : {1, 50, 2999}) check_equal(random_problem(2, 3000, 64, distinct), k);
  }
  Codes codes;
  for (int repeat = 0; repeat < 65; ++repeat) {
    codes.insert(codes.end(), 60, repeat == 0 ? 0 : ~uint64_t{0} >> (64 - repeat));
  }
  for (int64_t k : {1, 59, 500}) check_equal({Codes(3, ~uint64_t{0}), codes, 64}, k);
}

void test_empty() {
  check_equal({random_codes(3, 64, 1), {}, 64}, 4);
  CHECK(topk({{}, random_codes(3, 64, 1), 64}, 4).distances.empty());
  CHECK(topk({{}, {}, 64, {0}, {0}}, 4).distances.empty());
}

void test_wrong_offsets() {
  const auto refused = [](const Offsets& query_offsets, const Offsets& point_offsets) {
    try {
      topk({random_codes(4, 64, 1), random_codes(6, 64, 2), 64, query_offsets, point_offsets}, 1);
    } catch (const std::runtime_error& error) {
      return std::string(error.what()).find("_offsets must start at 0") != std::string::npos;
    }
    return false;
  };
  CHECK(refused({0, 3}, {0, 6}) && refused({0, 4}, {1, 6}) && refused({0, 4}, {0, 7}) &&
        refused({0, 3, 2, 4}, {0, 1, 1, 6}));
}

// What hamming_topk.h promises of scratch memory, at sizes that no test could hold.
void test_workspace() {
  for (int64_t num_queries : {int64_t{1}, int64_t{1000}, int64_t{1} << 33}) {
    for (int64_t num_codes : {int64_t{0}, int64_t{100}, int64_t{1} << 20, int64_t{1} << 34}) {
      for (int64_t k : {int64_t{1}, int64_t{10}, int64_t{2048}, int64_t{1} << 30}) {
        mdprop::HammingTopkArgs<uint64_t> args{};
        args.num_queries = num_queries;
        args.num_codes = num_codes;
        args.num_groups = 1;
        args.k = k;
        args.bits = 64;
        const auto plan = mdprop::plan_hamming_topk(args);
        CHECK(plan.bytes > 0 && plan.bytes <= int64_t{224} << 20);
        CHECK(plan.blocks >= 1 && plan.chunk_queries >= 1 && plan.key_bits < 64);
        CHECK(plan.splits * plan.split_codes >= num_codes && (plan.splits - 1) * plan.split_codes <= num_codes);
        CHECK(plan.split_codes % mdprop::kRoundCodes == 0);
      }
    }
  }
}

void test_distance() {
  for (int64_t bits : {1, 64, 65, 128, 200, 256, 1000}) {
    for (int64_t num_queries : {0, 1, 19}) {
      for (int64_t num_codes : {0, 5, 1029}) {
        const Problem problem = random_problem(num_queries, num_codes, bits);
        const Rows queries(problem.queries, bits % 2), codes(problem.codes, bits % 2);
        DeviceBuffer<int32_t> got(num_queries * num_codes);
        mdprop::hamming_distance_cuda<uint64_t>(
            {queries.data(), codes.data(), got.data(), num_queries, num_codes, bits}, nullptr);
        std::vector<int32_t> wanted;
        for (int64_t pair = 0; pair < num_queries * num_codes; ++pair) {
          wanted.push_back(naive_distance(problem, pair / num_codes, pair % num_codes));
        }
        CHECK(got.values() == wanted);
      }
    }
  }
}

}  // namespace

int main() {
  test_code_lengths();
  test_numbers_of_neighbours();
  test_splits_and_chunks();
  test_groups();
  test_ties_and_approaching_codes();
  test_empty();
  test_wrong_offsets();
  test_workspace();
  test_distance();
  return test_summary();
}
