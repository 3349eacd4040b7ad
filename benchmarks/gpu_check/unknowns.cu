// What only a run on the card can tell, as JSON on standard output: issue rates of one-bit and 8-bit tensor-core
// products (sm_90a), how many clusters fit, speed of copies and of re-reading by size, latency of barriers.
//
// A part that a card does not have is null, one that fails says why. benchmarks/gpu_check/build.py compiles this file.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "unknowns_latency.cuh"
#include "unknowns_memory.cuh"
#include "unknowns_products.cuh"
#include "unknowns_support.cuh"

namespace unknowns {
namespace {

// The sum of all results of one product, by the operands in the order of core_matrix_offset.
long long expected_sum(const std::vector<unsigned char>& a, const std::vector<unsigned char>& b, bool bits) {
  long long sum = 0;
  const int rows = static_cast<int>(b.size()) / kRowBytes;
  for (int byte = 0; byte < kRowBytes; ++byte) {
    // Summed over rows and columns a product of sums is left for each of the inner positions.
    for (int bit = 0; bit < (bits ? 8 : 1); ++bit) {
      const auto value = [&](const std::vector<unsigned char>& operand, int row) {
        const unsigned char raw = operand[static_cast<size_t>(core_matrix_offset(row, byte))];
        return bits ? raw >> bit & 1 : static_cast<int>(static_cast<signed char>(raw));
      };
      long long left = 0, right = 0;
      for (int row = 0; row < kRows; ++row) left += value(a, row);
      for (int row = 0; row < rows; ++row) right += value(b, row);
      sum += left * right;
    }
  }
  return sum;
}

std::vector<unsigned char> random_bytes(int count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<unsigned char> bytes(static_cast<size_t>(count));
  for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(random());
  return bytes;
}

template <int columns, bool bits>
std::string product_rate(const cudaDeviceProp& card) {
  const std::vector<unsigned char> a = random_bytes(kRows * kRowBytes, 1), b = random_bytes(columns * kRowBytes, 2);
  Device<unsigned char> a_device(a), b_device(b);
  const int blocks = card.multiProcessorCount;
  Device<long long> cycles(std::vector<long long>(static_cast<size_t>(blocks))), sum(std::vector<long long>(1));
  ProductArgs args{a_device.get(), b_device.get(), 1, cycles.get(), sum.get()};
  const auto launch = [&](int repetitions) {
    args.repetitions = repetitions;
    product_kernel<columns, bits><<<blocks, kWarpgroups * kWarpgroup>>>(args);
    check(cudaGetLastError(), "product_kernel");
  };
  launch(1);
  const bool exact = sum.host()[0] == kWarpgroups * kStage * expected_sum(a, b, bits);
  constexpr int kRepetitions = 1024;
  const double seconds = median_seconds([&] { launch(kRepetitions); });
  const std::vector<long long> counted = cycles.host();
  const double inner = bits ? 256 : 32;
  const double products = double(kWarpgroups) * kStage * kRepetitions;
  return object({{"columns", number(columns)},
                 {"cycles_per_product", number(double(*std::max_element(counted.begin(), counted.end())) / products)},
                 {"operations_per_s", number(2.0 * kRows * columns * inner * products * blocks / seconds)},
                 {"exact", exact ? "true" : "false"}});
}

template <bool bits>
std::string product_rates(const cudaDeviceProp& card) {
  if (card.major != 9) return "null";
  return array({product_rate<64, bits>(card), product_rate<128, bits>(card), product_rate<256, bits>(card)});
}

std::string guarded(const std::function<std::string()>& part) {
  try {
    return part();
  } catch (const std::exception& error) {
    return object({{"error", quoted(error.what())}});
  }
}

std::string clock_rate(const cudaDeviceProp& card) {
  return object({{"name", quoted(card.name)},
                 {"multiprocessors", number(card.multiProcessorCount)},
                 {"l2_bytes", number(card.l2CacheSize)},
                 {"busy_clock_hz", number(busy_clock())}});
}

int run() {
  cudaDeviceProp card;
  check(cudaGetDeviceProperties(&card, 0), "cudaGetDeviceProperties");
  const std::vector<std::pair<std::string, std::function<std::string()>>> parts = {
      {"card", [&] { return clock_rate(card); }},
      {"bit_products", [&] { return product_rates<true>(card); }},
      {"byte_products", [&] { return product_rates<false>(card); }},
      {"active_clusters", [&] { return active_clusters(card); }},
      {"copies", [&] { return copies(); }},
      {"rereads", [&] { return rereads(card); }},
      {"grid_barrier", [&] { return grid_barrier(card); }},
      {"cluster_reduce", [&] { return cluster_reduce(card); }},
  };
  std::vector<std::pair<std::string, std::string>> fields;
  for (const auto& [name, part] : parts) fields.emplace_back(name, guarded(part));
  std::printf("%s\n", object(fields).c_str());
  return 0;
}

}  // namespace
}  // namespace unknowns

int main() {
  try {
    return unknowns::run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
