// Temporary arrays of kernels: uninitialised, aligned to a cache line.
#pragma once

#include <cstdint>
#include <new>

#include "common/macros.h"

MDPROP_ISA_BEGIN

// Owns `size` uninitialised values of a trivial type. Lives in the instruction set's namespace, as std::vector cannot.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t size) : data_(static_cast<T*>(::operator new(size * sizeof(T), kAlignment))), size_(size) {}
  ~Scratch() { ::operator delete(data_, kAlignment); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  T* data_;
  int64_t size_;
};

MDPROP_ISA_END
