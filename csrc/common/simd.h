// One register of fp32 or fp64 per instruction set, for kernels that need explicit fused multiply-adds: files are
// compiled without contraction, so `a * b + c` never becomes one.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/macros.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

MDPROP_ISA_BEGIN

// Simd<T>: `Vector` holds kLanes values of T. multiply_add(a, b, c) = a * b + c, rounded once where the instruction set
// can and twice where it cannot; kRegisters is how many vectors the instruction set holds.
template <typename T>
struct Simd;

#if defined(__AVX512F__)

template <>
struct Simd<float> {
  using Vector = __m512;
  static constexpr int kLanes = 16, kRegisters = 32;
  static Vector load(const float* from) { return _mm512_loadu_ps(from); }
  static Vector broadcast(float value) { return _mm512_set1_ps(value); }
  static void store(float* to, Vector value) { _mm512_storeu_ps(to, value); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
  // Bit l is set where !(a[l] > b[l]): NaN counts as not greater.
  static uint32_t not_greater(Vector a, Vector b) { return _mm512_cmp_ps_mask(a, b, _CMP_NGT_UQ); }
};

template <>
struct Simd<double> {
  using Vector = __m512d;
  static constexpr int kLanes = 8, kRegisters = 32;
  static Vector load(const double* from) { return _mm512_loadu_pd(from); }
  static Vector broadcast(double value) { return _mm512_set1_pd(value); }
  static void store(double* to, Vector value) { _mm512_storeu_pd(to, value); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_pd(a, b, c); }
  static uint32_t not_greater(Vector a, Vector b) { return _mm512_cmp_pd_mask(a, b, _CMP_NGT_UQ); }
};

#elif defined(__AVX2__) && defined(__FMA__)

template <>
struct Simd<float> {
  using Vector = __m256;
  static constexpr int kLanes = 8, kRegisters = 16;
  static Vector load(const float* from) { return _mm256_loadu_ps(from); }
  static Vector broadcast(float value) { return _mm256_set1_ps(value); }
  static void store(float* to, Vector value) { _mm256_storeu_ps(to, value); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
  static uint32_t not_greater(Vector a, Vector b) {
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NGT_UQ)));
  }
};

template <>
struct Simd<double> {
  using Vector = __m256d;
  static constexpr int kLanes = 4, kRegisters = 16;
  static Vector load(const double* from) { return _mm256_loadu_pd(from); }
  static Vector broadcast(double value) { return _mm256_set1_pd(value); }
  static void store(double* to, Vector value) { _mm256_storeu_pd(to, value); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_pd(a, b, c); }
  static uint32_t not_greater(Vector a, Vector b) {
    return static_cast<uint32_t>(_mm256_movemask_pd(_mm256_cmp_pd(a, b, _CMP_NGT_UQ)));
  }
};

#else

// 16 bytes in the vector extension of gcc and clang: SSE2 on x86, NEON on ARM.
template <typename T>
struct Simd {
  typedef T Vector __attribute__((vector_size(16)));
  static constexpr int kLanes = 16 / sizeof(T), kRegisters = 16;
  static Vector load(const T* from) {
    Vector value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }
  static Vector broadcast(T value) { return Vector{} + value; }
  static void store(T* to, Vector value) { std::memcpy(to, &value, sizeof(value)); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return a * b + c; }
  static uint32_t not_greater(Vector a, Vector b) {
    const auto greater = a > b;
    uint32_t bits = 0;
    for (int lane = 0; lane < kLanes; ++lane) bits |= static_cast<uint32_t>(greater[lane] == 0) << lane;
    return bits;
  }
};

#endif

MDPROP_ISA_END
