// Searches of binary codes with naive results, for the tests of either device.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "hamming_topk/hamming_topk.h"

namespace hamming_problem {

using mdprop::kNoDistance;
using mdprop::kNoIndex;

inline int64_t words_of(int64_t bits) { return (bits + 63) / 64; }

using Codes = std::vector<uint64_t>;
using Offsets = std::vector<int64_t>;

struct Result {
  std::vector<int32_t> distances;
  std::vector<int64_t> indices;
};

// Queries and codes of `bits` bits, and the offsets of their groups; none means one group of everything.
struct Problem {
  Codes queries, codes;
  int64_t bits;
  Offsets query_offsets = {}, point_offsets = {};

  int64_t num_queries() const { return queries.size() / words_of(bits); }
  int64_t num_codes() const { return codes.size() / words_of(bits); }

  // The arguments of a kernel, without the pointers.
  mdprop::HammingTopkArgs<uint64_t> args(int64_t k) const {
    mdprop::HammingTopkArgs<uint64_t> args{};
    args.num_queries = num_queries();
    args.num_codes = num_codes();
    args.num_groups = query_offsets.empty() ? 1 : static_cast<int64_t>(query_offsets.size()) - 1;
    args.k = k;
    args.bits = bits;
    return args;
  }
};

inline int32_t naive_distance(const Problem& problem, int64_t query, int64_t code) {
  const int64_t words = words_of(problem.bits);
  int32_t distance = 0;
  for (int64_t word = 0; word < words; ++word) {
    const int64_t left = std::min<int64_t>(problem.bits - word * 64, 64);
    const uint64_t mask = left == 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
    distance +=
        __builtin_popcountll((problem.queries[query * words + word] ^ problem.codes[code * words + word]) & mask);
  }
  return distance;
}

inline Result naive_topk(const Problem& problem, int64_t k) {
  const bool grouped = !problem.query_offsets.empty();
  const Offsets query_offsets = grouped ? problem.query_offsets : Offsets{0, problem.num_queries()};
  const Offsets point_offsets = grouped ? problem.point_offsets : Offsets{0, problem.num_codes()};
  Result result;
  for (size_t group = 0; group + 1 < query_offsets.size(); ++group) {
    for (int64_t query = query_offsets[group]; query < query_offsets[group + 1]; ++query) {
      std::vector<std::pair<int32_t, int64_t>> pairs;
      for (int64_t code = point_offsets[group]; code < point_offsets[group + 1]; ++code) {
        pairs.emplace_back(naive_distance(problem, query, code), code);
      }
      std::partial_sort(pairs.begin(), pairs.begin() + std::min<int64_t>(k, pairs.size()), pairs.end());
      pairs.resize(k, {kNoDistance, kNoIndex});
      for (const auto& [distance, index] : pairs) {
        result.distances.push_back(distance);
        result.indices.push_back(index);
      }
    }
  }
  return result;
}

// Random words; bits beyond `bits` are random too, for they must not count. `distinct` > 0 draws from that many codes.
inline Codes random_codes(int64_t rows, int64_t bits, uint64_t seed, int64_t distinct = 0) {
  std::mt19937_64 random(seed);
  const int64_t words = words_of(bits);
  Codes codes(rows * words);
  for (uint64_t& word : codes) word = random();
  for (int64_t row = distinct; distinct > 0 && row < rows; ++row) {
    std::copy_n(codes.begin() + random() % distinct * words, words, codes.begin() + row * words);
  }
  return codes;
}

}  // namespace hamming_problem
