// Loads and stores of several values at once: 16 bytes are what a thread should move.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

#include "common/macros.h"

MDPROP_ISA_BEGIN

// Aligned to its size, which is a power of two up to 16 bytes.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Vector {
  static_assert(sizeof(T) * kCount <= 16, "a thread moves at most 16 bytes at once");
  T values[kCount];

  MDPROP_HOST_DEVICE T& operator[](int i) { return values[i]; }
  MDPROP_HOST_DEVICE const T& operator[](int i) const { return values[i]; }
};

// How many values of T 16 bytes hold.
template <typename T>
constexpr int kVectorWidth = 16 / static_cast<int>(sizeof(T));

// Whether a pointer may be loaded from in runs of `bytes`.
MDPROP_HOST_DEVICE bool is_aligned(const void* pointer, size_t bytes = 16) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

namespace detail {

template <int kBytes>
struct Word;
template <>
struct Word<1> {
  using type = unsigned char;
};
template <>
struct Word<2> {
  using type = unsigned short;
};
template <>
struct Word<4> {
  using type = unsigned;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<16> {
  using type = uint4;
};

template <typename V>
__device__ __forceinline__ void check_alignment([[maybe_unused]] const void* pointer) {
#ifndef __CUDACC__
  if (!is_aligned(pointer, sizeof(V))) emulation::fail("misaligned vector access");
#endif
}

}  // namespace detail

template <int kCount, typename T>
__device__ __forceinline__ Vector<T, kCount> load_vector(const T* pointer) {
  using V = Vector<T, kCount>;
  detail::check_alignment<V>(pointer);
  return *reinterpret_cast<const V*>(pointer);
}

template <typename T, int kCount>
__device__ __forceinline__ void store_vector(T* pointer, const Vector<T, kCount>& vector) {
  using V = Vector<T, kCount>;
  detail::check_alignment<V>(pointer);
  *reinterpret_cast<V*>(pointer) = vector;
}

// For values that are read once: they leave the caches first.
template <int kCount, typename T>
__device__ __forceinline__ Vector<T, kCount> load_streaming(const T* pointer) {
#ifdef __CUDACC__
  using Word = typename detail::Word<sizeof(T) * kCount>::type;
  const Word word = __ldcs(reinterpret_cast<const Word*>(pointer));
  Vector<T, kCount> vector;
  memcpy(&vector, &word, sizeof(word));
  return vector;
#else
  return load_vector<kCount>(pointer);
#endif
}

// For results that this kernel does not read again.
template <typename T, int kCount>
__device__ __forceinline__ void store_streaming(T* pointer, const Vector<T, kCount>& vector) {
#ifdef __CUDACC__
  using Word = typename detail::Word<sizeof(T) * kCount>::type;
  Word word;
  memcpy(&word, &vector, sizeof(word));
  __stcs(reinterpret_cast<Word*>(pointer), word);
#else
  store_vector(pointer, vector);
#endif
}

MDPROP_ISA_END
