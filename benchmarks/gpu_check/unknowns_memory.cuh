// Copies by size, and what of a tensor is still in L2 when it is read again.
#pragma once

#include <string>
#include <vector>

#include "unknowns_support.cuh"

namespace unknowns {

constexpr int kReadThreads = 256;
constexpr int kReadVectors = 16;  // of 16 bytes, by each thread: a block reads 64 KB

// Block i reads chunk i of `count` chunks, or the one that far from the end. The sum is written where it never is 1, so
// that no read is left out.
__global__ void __launch_bounds__(kReadThreads)
    read_kernel(const uint4* values, long long count, bool reversed, unsigned* never) {
  const long long chunk = reversed ? count - 1 - blockIdx.x : blockIdx.x;
  const uint4* own = values + chunk * kReadThreads * kReadVectors + threadIdx.x;
  unsigned sum = 0;
#pragma unroll
  for (int i = 0; i < kReadVectors; ++i) {
    const uint4 value = own[i * kReadThreads];
    sum |= value.x | value.y | value.z | value.w;
  }
  if (sum == 1) *never = sum;
}

// Bytes read and written a second by cudaMemcpy from device to device, 1 MB to 1 GB in each direction.
inline std::string copies() {
  std::vector<std::string> rows;
  for (size_t bytes = size_t{1} << 20; bytes <= size_t{1} << 30; bytes *= 2) {
    Device<unsigned char> source(bytes), target(bytes);
    check(cudaMemset(source.get(), 0x5a, bytes), "cudaMemset");
    const double seconds = median_seconds([&] {
      check(cudaMemcpyAsync(target.get(), source.get(), bytes, cudaMemcpyDeviceToDevice), "cudaMemcpyAsync");
    });
    rows.push_back(object({{"bytes", number(double(bytes))}, {"bytes_per_s", number(2.0 * bytes / seconds)}}));
  }
  return array(rows);
}

// A tensor is read once from the front; then its second half is read again, from its front or from its end. What is in
// L2 shows as speed beyond that of memory.
inline std::string rereads(const cudaDeviceProp& card) {
  constexpr size_t kChunk = size_t{kReadThreads} * kReadVectors * sizeof(uint4);
  std::vector<std::string> rows;
  Device<unsigned> never(1);
  Device<unsigned char> other(4 * static_cast<size_t>(card.l2CacheSize));
  for (size_t bytes = size_t{8} << 20; bytes <= size_t{512} << 20; bytes *= 2) {
    Device<unsigned char> tensor(bytes);
    check(cudaMemset(tensor.get(), 0x5a, bytes), "cudaMemset");
    const auto read = [&](size_t offset, size_t length, bool reversed) {
      const long long chunks = static_cast<long long>(length / kChunk);
      const auto* values = reinterpret_cast<const uint4*>(tensor.get() + offset);
      read_kernel<<<static_cast<unsigned>(chunks), kReadThreads>>>(values, chunks, reversed, never.get());
      check(cudaGetLastError(), "read_kernel");
    };
    const auto first_pass = [&] {
      check(cudaMemset(other.get(), 1, 4 * static_cast<size_t>(card.l2CacheSize)), "cudaMemset");
      read(0, bytes, false);
    };
    std::vector<std::pair<std::string, std::string>> row = {{"bytes", number(double(bytes))}};
    for (const bool reversed : {false, true}) {
      const double seconds = median_seconds([&] { read(bytes / 2, bytes / 2, reversed); }, first_pass);
      row.emplace_back(reversed ? "reversed_bytes_per_s" : "forward_bytes_per_s", number(0.5 * bytes / seconds));
    }
    rows.push_back(object(row));
  }
  return array(rows);
}

}  // namespace unknowns
