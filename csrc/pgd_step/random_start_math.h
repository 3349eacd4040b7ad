// The random numbers of random_start, shared by CPU and CUDA, which give the same bits: integer arithmetic, fp32
// operations that IEEE 754 rounds correctly, and sums in fp64 in a fixed order.
//
// Value i of sample n takes word i % 4 of Philox4x32-10 with counter (i / 4, n, offset) and key seed. The noise is fp32
// for every type of tensor. l2: normal values g_i; the first M coordinates of a uniform point on the sphere of M + 2
// dimensions are uniform in the ball of M, so that g_i / sqrt(sum g_i^2 + 2 e) is, with an exponential e in the place
// of the squares of two more normal values. l1: signed exponential values e_i; e_i / (sum |e_i| + e) is uniform
// likewise. So no power is needed. e comes from the counter (2^32 - 1, n, offset).
#pragma once

#include <cmath>
#include <cstdint>

#include "common/numeric.h"
#include "pgd_step/pgd_step.h"
#include "pgd_step/pgd_step_math.h"

MDPROP_ISA_BEGIN

constexpr int kWords = 4;
constexpr uint32_t kLengthBlock = 0xffffffffu;  // in the place of i / 4: the exponential of a sample's length

struct PhiloxWords {
  uint32_t words[kWords];
};

// Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
MDPROP_HOST_DEVICE PhiloxWords philox(PhiloxWords counter, uint64_t seed) {
  uint32_t c0 = counter.words[0], c1 = counter.words[1], c2 = counter.words[2], c3 = counter.words[3];
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t even = static_cast<uint64_t>(0xd2511f53u) * c0, odd = static_cast<uint64_t>(0xcd9e8d57u) * c2;
    const uint32_t next0 = static_cast<uint32_t>(odd >> 32) ^ c1 ^ key0;
    const uint32_t next2 = static_cast<uint32_t>(even >> 32) ^ c3 ^ key1;
    c1 = static_cast<uint32_t>(odd);
    c3 = static_cast<uint32_t>(even);
    c0 = next0;
    c2 = next2;
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
  return {{c0, c1, c2, c3}};
}

MDPROP_HOST_DEVICE PhiloxWords philox_block(uint64_t seed, uint64_t offset, int64_t sample, uint32_t block) {
  return philox(
      {{block, static_cast<uint32_t>(sample), static_cast<uint32_t>(offset), static_cast<uint32_t>(offset >> 32)}},
      seed);
}

// Uniform on the odd multiples of 2^-24 in (-1, 1).
MDPROP_HOST_DEVICE float signed_uniform(uint32_t word) {
  return static_cast<float>(2 * static_cast<int32_t>(word >> 8) + 1 - (1 << 24)) * 0x1p-24f;
}

// The natural logarithm of a positive normal number, to about one unit in the last place.
MDPROP_HOST_DEVICE float natural_log(float value) {
  // value = 2^exponent * m with m in [sqrt(1/2), sqrt(2)), then log m = 2 artanh((m - 1) / (m + 1)) by its series.
  constexpr uint32_t kSqrtHalf = 0x3f3504f3u;
  const uint32_t bits = bit_cast<uint32_t>(value) - kSqrtHalf;
  const float exponent = static_cast<float>(static_cast<int32_t>(bits) >> 23);
  const float m = bit_cast<float>((bits & 0x7fffffu) + kSqrtHalf);
  const float s = (m - 1.0f) / (m + 1.0f), t = s * s;
  const float series = s * t * (0x1.555556p-1f + t * (0x1.99999ap-2f + t * (0x1.24924ap-2f + t * 0x1.c71c72p-3f)));
  // log 2 in two parts, of which the first has few bits, so that its product with an exponent is exact.
  return exponent * 0x1.62ep-1f + (2.0f * s + (series + exponent * 0x1.0bfbe8p-15f));
}

// Exponential with mean 1, from the upper 31 bits of a word: at most 22.2.
MDPROP_HOST_DEVICE float exponential(uint32_t word) {
  return -natural_log((static_cast<float>(static_cast<int32_t>(word >> 1)) + 0.5f) * 0x1p-31f);
}

// Sine and cosine of 2 pi word / 2^32.
MDPROP_HOST_DEVICE void sine_cosine(uint32_t word, float& sine, float& cosine) {
  // The nearest quarter turn, and the rest as an angle of at most pi / 4, where few terms of the series suffice.
  const uint32_t quarter = (word + (1u << 29)) >> 30;
  const float angle = static_cast<float>(static_cast<int32_t>(word - (quarter << 30))) * 0x1.921fb6p-30f;
  const float t = angle * angle;
  const float s =
      angle + angle * t * (-0x1.555556p-3f + t * (0x1.111112p-7f + t * (-0x1.a01a02p-13f + t * 0x1.71de3ap-19f)));
  const float c = 1.0f + t * (-0.5f + t * (0x1.555556p-5f + t * (-0x1.6c16c2p-10f + t * 0x1.a01a02p-16f)));
  sine = (quarter & 1) != 0 ? c : s;
  cosine = (quarter & 1) != 0 ? s : c;
  sine = (quarter & 2) != 0 ? -sine : sine;
  cosine = ((quarter + 1) & 2) != 0 ? -cosine : cosine;
}

// Two independent normal values by Box and Muller's transform.
MDPROP_HOST_DEVICE void normal_pair(uint32_t word, uint32_t angle, float& first, float& second) {
  float sine, cosine;
  sine_cosine(angle, sine, cosine);
  const float length = sqrtf(2.0f * exponential(word));
  first = length * cosine;
  second = length * sine;
}

// The noise of four neighbouring values.
template <PgdNorm kNorm>
MDPROP_HOST_DEVICE void noise_of(const PhiloxWords& random, float (&noise)[kWords]) {
  if constexpr (kNorm == PgdNorm::kL2) {
    normal_pair(random.words[0], random.words[1], noise[0], noise[1]);
    normal_pair(random.words[2], random.words[3], noise[2], noise[3]);
  } else {
    for (int w = 0; w < kWords; ++w) {
      const uint32_t word = random.words[w];
      if constexpr (kNorm == PgdNorm::kLinf) {
        noise[w] = signed_uniform(word);
      } else {
        noise[w] = (word & 1) != 0 ? -exponential(word) : exponential(word);
      }
    }
  }
}

// What a value of noise adds to its sample's sum.
template <PgdNorm kNorm>
MDPROP_HOST_DEVICE double noise_weight(float noise) {
  if constexpr (kNorm == PgdNorm::kL2) return static_cast<double>(noise) * static_cast<double>(noise);
  return static_cast<double>(noise < 0 ? -noise : noise);
}

// What the noise of a sample is multiplied by, given the sum of its weights and the first word of kLengthBlock.
template <typename Acc, PgdNorm kNorm>
MDPROP_HOST_DEVICE Acc noise_scale(double sum, uint32_t length_word, double radius) {
  const double extra = static_cast<double>(exponential(length_word));
  const double length = kNorm == PgdNorm::kL2 ? sqrt(sum + 2 * extra) : sum + extra;
  return length > 0 ? static_cast<Acc>(radius / length * kBallSlack<Acc>) : Acc(0);
}

// One value of the result. `scale` is the radius for linf.
template <typename T, PgdNorm kNorm, typename Acc = acc_t<T>>
MDPROP_HOST_DEVICE T start_value(Acc origin, float noise, Acc scale, Acc lower, Acc upper) {
  const Acc delta = scale * static_cast<Acc>(noise);
  if constexpr (kNorm == PgdNorm::kLinf) {
    return linf_value<T, true>(origin + delta, Acc(0), origin, Acc(0), scale, lower, upper);
  } else {
    return place_value<T, true>(origin + delta, delta < 0 ? -delta : delta, origin, lower, upper);
  }
}

MDPROP_ISA_END
