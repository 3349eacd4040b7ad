// Storage types, the type each is computed in, and conversions between the two.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "common/macros.h"

#if defined(__F16C__) && !defined(__CUDACC__)
#include <immintrin.h>
#endif

namespace mdprop {

// Bit patterns only: arithmetic happens in acc_t.
struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

// fp32 for fp16, bf16 and fp32; fp64 for fp64.
template <typename T>
struct AccumulateType {
  using type = float;
};
template <>
struct AccumulateType<double> {
  using type = double;
};
template <typename T>
using acc_t = typename AccumulateType<T>::type;

}  // namespace mdprop

MDPROP_ISA_BEGIN

template <typename To, typename From>
MDPROP_HOST_DEVICE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast needs types of one size");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// Storage type to compute type: exact.
MDPROP_HOST_DEVICE float widen(float value) { return value; }
MDPROP_HOST_DEVICE double widen(double value) { return value; }
MDPROP_HOST_DEVICE float widen(BFloat16 value) { return bit_cast<float>(static_cast<uint32_t>(value.bits) << 16); }
MDPROP_HOST_DEVICE float widen(Half value) {
#ifdef __CUDA_ARCH__
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
#else
  // Moves the exponent and mantissa in place and rescales by 2^112, which is exact for subnormals too.
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(value.bits & 0x7fffu) << 13;
  const float scaled = bit_cast<float>(magnitude) * bit_cast<float>(0x77800000u);
  const uint32_t infinite = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;  // infinity and NaN keep an all-ones exponent
  return bit_cast<float>(bit_cast<uint32_t>(scaled) | infinite | sign);
#endif
}

// Compute type to storage type: round to nearest, ties to even, NaN stays NaN.
template <typename T>
MDPROP_HOST_DEVICE T narrow(acc_t<T> value);

template <>
MDPROP_HOST_DEVICE float narrow<float>(float value) {
  return value;
}
template <>
MDPROP_HOST_DEVICE double narrow<double>(double value) {
  return value;
}
template <>
MDPROP_HOST_DEVICE BFloat16 narrow<BFloat16>(float value) {
#ifdef __CUDA_ARCH__
  BFloat16 result;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
  return result;
#else
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return {static_cast<uint16_t>(value != value ? 0x7fc0u : rounded)};
#endif
}
template <>
MDPROP_HOST_DEVICE Half narrow<Half>(float value) {
#ifdef __CUDA_ARCH__
  Half result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
  return result;
#else
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  // Normal results: rebias the exponent and round the 13 dropped bits; a carry into infinity is the right overflow.
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // Subnormal results: adding 0.5 aligns the mantissa so that the addition itself rounds to even.
  const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  uint32_t result = magnitude < 0x38800000u ? subnormal : normal;
  result = magnitude >= 0x47800000u ? 0x7c00u : result;  // 65536 and above, infinity
  result = magnitude > 0x7f800000u ? 0x7e00u : result;   // NaN
  return {static_cast<uint16_t>(result | sign)};
#endif
}

// `count` values at once; `in` and `out` may not overlap.
template <typename T>
void widen_tile(const T* MDPROP_RESTRICT in, acc_t<T>* MDPROP_RESTRICT out, int64_t count) {
  int64_t i = 0;
#if defined(__F16C__) && !defined(__CUDACC__)
  if constexpr (std::is_same_v<T, Half>) {
    for (; i + 8 <= count; i += 8) {
      const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i));
      _mm256_storeu_ps(out + i, _mm256_cvtph_ps(half));
    }
  }
#endif
  for (; i < count; ++i) out[i] = widen(in[i]);
}

template <typename T>
void narrow_tile(const acc_t<T>* MDPROP_RESTRICT in, T* MDPROP_RESTRICT out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = narrow<T>(in[i]);
}

MDPROP_ISA_END
