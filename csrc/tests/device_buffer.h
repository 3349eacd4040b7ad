// Memory that tests hand to emulated kernels: guard zones on both sides, poisoned until written.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "emulation/thread.h"
#include "tests/check.h"

namespace mdprop_test {

template <typename T>
class DeviceBuffer {
 public:
  // `size` values that nobody has written.
  explicit DeviceBuffer(int64_t size) : memory_(static_cast<size_t>(size) * sizeof(T)), size_(size) {}
  explicit DeviceBuffer(const std::vector<T>& values) : DeviceBuffer(static_cast<int64_t>(values.size())) {
    if (size_ > 0) std::memcpy(data(), values.data(), memory_.size());
  }
  ~DeviceBuffer() { check(memory_.intact(), "no write outside the buffer (guard zone changed)", __FILE__, __LINE__); }
  DeviceBuffer(DeviceBuffer&&) = delete;

  T* data() const { return reinterpret_cast<T*>(memory_.data()); }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) const { return data()[i]; }
  std::vector<T> values() const { return std::vector<T>(data(), data() + size_); }
  // The first value that still holds poison, or -1. A result may look like poison only where NaN or -1 is right.
  int64_t first_unwritten() const {
    T poison;
    std::memset(&poison, mdprop::emulation::kPoison, sizeof(T));
    for (int64_t i = 0; i < size_; ++i) {
      if (std::memcmp(data() + i, &poison, sizeof(T)) == 0) return i;
    }
    return -1;
  }

 private:
  mdprop::emulation::GuardedMemory memory_;
  int64_t size_;
};

}  // namespace mdprop_test

using mdprop_test::DeviceBuffer;
