// pack_codes and unpack_codes as CUDA kernels, against the CPU kernels, which test_pack_codes.cpp compares with loops.
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "hamming_topk/hamming_topk.h"
#include "tests/check.h"
#include "tests/device_buffer.h"

namespace {

// Random bit patterns: of floating-point types every kind of number, infinities and NaN among them; and many zeros.
template <typename T>
std::vector<T> random_values(int64_t count) {
  std::mt19937_64 random(3);
  std::vector<T> values(count);
  for (T& value : values) {
    const uint64_t bits = random() % 4 == 0 ? 0 : random();
    std::memcpy(&value, &bits, sizeof(T));
  }
  return values;
}

// `shift` values before the first leave it without alignment to 16 bytes.
template <typename T>
void check_codec(int64_t rows, int64_t bits, int64_t shift) {
  const int64_t words = (bits + 63) / 64;
  const DeviceBuffer<T> values(random_values<T>(shift + rows * bits));
  const T* codes = values.data() + shift;
  std::vector<uint64_t> wanted(rows * words);
  mdprop::pack_codes_cpu<T>({codes, wanted.data(), rows, bits});
  DeviceBuffer<uint64_t> packed(rows * words);
  mdprop::pack_codes_cuda<T>({codes, packed.data(), rows, bits}, nullptr);
  CHECK(packed.values() == wanted);

  std::vector<uint8_t> wanted_bits(rows * bits);
  mdprop::unpack_codes_cpu<uint8_t>({wanted.data(), wanted_bits.data(), rows, bits});
  for (int64_t row = 0; row < rows && bits % 64 != 0; ++row) packed[row * words + words - 1] |= uint64_t{1} << 63;
  DeviceBuffer<uint8_t> unpacked(shift + rows * bits);
  mdprop::unpack_codes_cuda<uint8_t>({packed.data(), unpacked.data() + shift, rows, bits}, nullptr);
  CHECK(std::vector<uint8_t>(unpacked.data() + shift, unpacked.data() + unpacked.size()) == wanted_bits);
}

template <typename T>
void test_codec() {
  for (int64_t bits : {1, 7, 8, 12, 16, 63, 64, 65, 80, 128, 130, 256}) {
    for (int64_t shift : {0, 1}) check_codec<T>(9, bits, shift);
  }
  check_codec<T>(0, 64, 0);
  check_codec<T>(700, 3, 0);
}

}  // namespace

int main() {
  test_codec<uint8_t>();
  test_codec<int8_t>();
  test_codec<int16_t>();
  test_codec<int32_t>();
  test_codec<int64_t>();
  test_codec<float>();
  test_codec<double>();
  test_codec<mdprop::Half>();
  test_codec<mdprop::BFloat16>();
  return test_summary();
}
