// hamming_topk, pack_codes and unpack_codes against naive loops.
#include <algorithm>
#include <cstdint>
#include <exception>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "common/cpu_isa.h"
#include "hamming_topk/hamming_topk.h"
#include "tests/check.h"

namespace {

using mdprop::kNoDistance;
using mdprop::kNoIndex;

int64_t words_of(int64_t bits) { return (bits + 63) / 64; }

struct Result {
  std::vector<int32_t> distances;
  std::vector<int64_t> indices;
};

Result naive_topk(const std::vector<uint64_t>& queries, const std::vector<uint64_t>& codes, int64_t k, int64_t bits) {
  const int64_t words = words_of(bits);
  Result result;
  for (size_t q = 0; q < queries.size() / words; ++q) {
    std::vector<std::pair<int32_t, int64_t>> pairs;
    for (size_t n = 0; n < codes.size() / words; ++n) {
      int32_t distance = 0;
      for (int64_t word = 0; word < words; ++word) {
        const int64_t left = std::min<int64_t>(bits - word * 64, 64);
        const uint64_t mask = left == 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
        distance += __builtin_popcountll((queries[q * words + word] ^ codes[n * words + word]) & mask);
      }
      pairs.emplace_back(distance, n);
    }
    std::partial_sort(pairs.begin(), pairs.begin() + std::min<int64_t>(k, pairs.size()), pairs.end());
    pairs.resize(k, {kNoDistance, kNoIndex});
    for (const auto& [distance, index] : pairs) {
      result.distances.push_back(distance);
      result.indices.push_back(index);
    }
  }
  return result;
}

Result topk(const std::vector<uint64_t>& queries, const std::vector<uint64_t>& codes, int64_t k, int64_t bits) {
  const int64_t words = words_of(bits);
  const int64_t num_queries = queries.size() / words, num_codes = codes.size() / words;
  Result result{std::vector<int32_t>(num_queries * k, -7), std::vector<int64_t>(num_queries * k, -7)};
  mdprop::hamming_topk_cpu<uint64_t>(
      {queries.data(), codes.data(), result.distances.data(), result.indices.data(), num_queries, num_codes, k, bits});
  return result;
}

// Random words; bits beyond `bits` are random too, for they must not count. `distinct` > 0 draws from that many codes.
std::vector<uint64_t> random_codes(int64_t rows, int64_t bits, uint64_t seed, int64_t distinct = 0) {
  std::mt19937_64 random(seed);
  const int64_t words = words_of(bits);
  std::vector<uint64_t> codes(rows * words);
  for (uint64_t& word : codes) word = random();
  for (int64_t row = distinct; distinct > 0 && row < rows; ++row) {
    std::copy_n(codes.begin() + random() % distinct * words, words, codes.begin() + row * words);
  }
  return codes;
}

void check_equal(const std::vector<uint64_t>& queries, const std::vector<uint64_t>& codes, int64_t k, int64_t bits) {
  const Result wanted = naive_topk(queries, codes, k, bits), got = topk(queries, codes, k, bits);
  if (!CHECK(got.distances == wanted.distances && got.indices == wanted.indices)) {
    std::printf("  bits %ld, words of queries %zu, of codes %zu, k %ld\n", static_cast<long>(bits), queries.size(),
                codes.size(), static_cast<long>(k));
  }
}

// Few queries take the popcount scan and many the slices; more than 2^15 codes are cut into parts.
void test_sizes() {
  for (int64_t bits : {1, 3, 12, 33, 48, 63, 64, 65, 96, 128, 129, 200, 256, 259, 1000, 5000}) {
    for (int64_t num_queries : {1, 5, 33}) {
      for (int64_t num_codes : {1, 63, 513, 1100}) {
        for (int64_t k : {1, 10, 600}) {
          check_equal(random_codes(num_queries, bits, 1), random_codes(num_codes, bits, 2), k, bits);
        }
      }
    }
  }
}

void test_cut_by_codes() {
  for (int64_t bits : {12, 64, 130}) {
    for (int64_t num_queries : {1, 24}) {
      check_equal(random_codes(num_queries, bits, 3), random_codes(70001, bits, 4), 10, bits);
      check_equal(random_codes(num_queries, bits, 3), random_codes(70001, bits, 4, 50), 300, bits);
    }
  }
}

void test_cut_by_queries() { check_equal(random_codes(600, 64, 5), random_codes(700, 64, 6), 5, 64); }

void test_ties() {
  for (int64_t bits : {2, 64, 256}) {
    for (int64_t distinct : {1, 2, 7}) {
      const std::vector<uint64_t> codes = random_codes(3000, bits, 7, distinct);
      for (int64_t k : {1, 50, 2999, 3001}) {
        check_equal(random_codes(2, bits, 8), codes, k, bits);
        check_equal(std::vector<uint64_t>(codes.begin(), codes.begin() + 30 * words_of(bits)), codes, k, bits);
      }
    }
  }
}

// Every code is nearer than all before it, which refreshes the threshold with each and fills the buffers most.
void test_approaching_codes() {
  const std::vector<uint64_t> queries(25, ~uint64_t{0});
  std::vector<uint64_t> codes;
  for (int repeat = 0; repeat < 65; ++repeat) {
    codes.insert(codes.end(), 40, repeat == 0 ? 0 : ~uint64_t{0} >> (64 - repeat));
  }
  for (int64_t k : {1, 39, 41, 500}) check_equal(queries, codes, k, 64);
}

void test_empty() {
  const Result no_codes = topk(random_codes(3, 64, 1), {}, 4, 64);
  CHECK(no_codes.distances == std::vector<int32_t>(12, kNoDistance));
  CHECK(no_codes.indices == std::vector<int64_t>(12, kNoIndex));
  CHECK(topk({}, random_codes(3, 64, 1), 4, 64).distances.empty());
}

template <typename T>
void check_pack(const std::vector<T>& values, const std::vector<bool>& positive, int64_t bits) {
  const int64_t words = words_of(bits), rows = values.size() / bits;
  std::vector<uint64_t> wanted(rows * words, 0), packed(rows * words, ~uint64_t{0});
  for (int64_t i = 0; i < rows * bits; ++i) {
    wanted[i / bits * words + i % bits / 64] |= uint64_t{positive[i]} << (i % bits % 64);
  }
  mdprop::pack_codes_cpu<T>({values.data(), packed.data(), rows, bits});
  CHECK(packed == wanted);
  for (int64_t row = 0; row < rows && bits % 64 != 0; ++row) packed[row * words + words - 1] |= uint64_t{1} << 63;
  std::vector<uint8_t> unpacked(rows * bits, 9);
  mdprop::unpack_codes_cpu<uint8_t>({packed.data(), unpacked.data(), rows, bits});
  CHECK(std::equal(unpacked.begin(), unpacked.end(), positive.begin(), positive.end()));
}

template <typename T>
void test_pack_numbers() {
  std::mt19937_64 random(9);
  for (int64_t bits : {1, 7, 8, 12, 63, 64, 65, 130, 256}) {
    std::vector<T> values(37 * bits);
    std::vector<bool> positive;
    for (T& value : values) {
      value = static_cast<T>(static_cast<int>(random() % 3) - 1);
      positive.push_back(value > T(0));
    }
    check_pack(values, positive, bits);
  }
}

template <typename T>
void test_pack_special() {
  const T infinity = std::numeric_limits<T>::infinity(), tiny = std::numeric_limits<T>::denorm_min();
  check_pack<T>({T(0), -T(0), tiny, -tiny, infinity, -infinity, std::numeric_limits<T>::quiet_NaN()},
                {false, false, true, false, true, false, false}, 7);
}

// 0, -0, smallest, -smallest, 1, infinity, -infinity, NaN, -NaN by their bits.
void test_pack_halves() {
  const std::vector<bool> positive = {false, false, true, false, true, true, false, false, false};
  check_pack<mdprop::Half>({{0}, {0x8000}, {1}, {0x8001}, {0x3c00}, {0x7c00}, {0xfc00}, {0x7e00}, {0xfe00}}, positive,
                           9);
  check_pack<mdprop::BFloat16>({{0}, {0x8000}, {1}, {0x8001}, {0x3f80}, {0x7f80}, {0xff80}, {0x7fc0}, {0xffc0}},
                               positive, 9);
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
  test_pack_numbers<uint8_t>();
  test_pack_numbers<int8_t>();
  test_pack_numbers<int16_t>();
  test_pack_numbers<int32_t>();
  test_pack_numbers<int64_t>();
  test_pack_numbers<float>();
  test_pack_numbers<double>();
  test_pack_special<float>();
  test_pack_special<double>();
  test_pack_halves();
  return test_summary();
}
