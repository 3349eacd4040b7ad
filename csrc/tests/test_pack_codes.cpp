// pack_codes and unpack_codes against naive loops.
#include <algorithm>
#include <cstdint>
#include <exception>
#include <limits>
#include <random>
#include <vector>

#include "common/cpu_isa.h"
#include "hamming_topk/hamming_topk.h"
#include "tests/check.h"

namespace {

int64_t words_of(int64_t bits) { return (bits + 63) / 64; }

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
