// Short runs of values in their compute type, whatever the storage type.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/numeric.h"

MDPROP_ISA_BEGIN

constexpr int64_t kTile = 1024;  // values: 4 KB of fp32, so that several tiles share the first-level cache

// A run of up to kTile values: the storage itself for fp32 and fp64, a widened copy for half types. Inner loops then
// see fp32 or fp64 only, and vectorise.
template <typename T>
class Tile {
 public:
  const acc_t<T>* load(const T* source, int64_t count) {
    if constexpr (sizeof(T) == sizeof(acc_t<T>)) {
      return source;
    } else {
      widen_tile(source, buffer_, count);
      return buffer_;
    }
  }

 private:
  alignas(64) acc_t<T> buffer_[sizeof(T) == sizeof(acc_t<T>) ? 1 : kTile];
};

// Calls body(offset, count) for the tiles that cover [begin, end).
template <typename Body>
void for_each_tile(int64_t begin, int64_t end, const Body& body) {
  for (int64_t offset = begin; offset < end; offset += kTile) body(offset, std::min(kTile, end - offset));
}

MDPROP_ISA_END
