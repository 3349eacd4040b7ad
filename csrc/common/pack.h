// Several neighbouring values in registers, with the operators of one value, for sums that run down the rows of a
// matrix.
//
// Every lane is added up by itself, so results do not depend on the width of a pack.
#pragma once

#include <cstdint>

#include "common/simd.h"

MDPROP_ISA_BEGIN

// kVectors registers of values; Pack<Acc, 0> is a single value.
template <typename Acc, int kVectors>
struct Pack {
  using Vector = typename Simd<Acc>::Vector;
  static constexpr int64_t kWidth = kVectors * Simd<Acc>::kLanes;

  Vector vectors[kVectors];

  static Pack load(const Acc* from) {
    return make([=](int i) { return Simd<Acc>::load(from + i * Simd<Acc>::kLanes); });
  }
  static Pack broadcast(Acc value) {
    return make([=](int) { return Simd<Acc>::broadcast(value); });
  }
  void store(Acc* to) const {
    for (int i = 0; i < kVectors; ++i) Simd<Acc>::store(to + i * Simd<Acc>::kLanes, vectors[i]);
  }

  friend Pack operator+(const Pack& a, const Pack& b) {
    return make([&](int i) { return a.vectors[i] + b.vectors[i]; });
  }
  friend Pack operator-(const Pack& a, const Pack& b) {
    return make([&](int i) { return a.vectors[i] - b.vectors[i]; });
  }
  friend Pack operator*(const Pack& a, const Pack& b) {
    return make([&](int i) { return a.vectors[i] * b.vectors[i]; });
  }
  // `value` in the lanes where `test` is above 0, else 0.
  friend Pack where_positive(const Pack& test, const Pack& value) {
    return make([&](int i) { return test.vectors[i] > Vector{} ? value.vectors[i] : Vector{}; });
  }

 private:
  template <typename Make>
  static Pack make(const Make& vector) {
    Pack pack;
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) pack.vectors[i] = vector(i);
    return pack;
  }
};

template <typename Acc>
struct Pack<Acc, 0> {
  static constexpr int64_t kWidth = 1;

  Acc value;

  static Pack load(const Acc* from) { return {*from}; }
  static Pack broadcast(Acc value) { return {value}; }
  void store(Acc* to) const { *to = value; }
  friend Pack operator+(Pack a, Pack b) { return {a.value + b.value}; }
  friend Pack operator-(Pack a, Pack b) { return {a.value - b.value}; }
  friend Pack operator*(Pack a, Pack b) { return {a.value * b.value}; }
  friend Pack where_positive(Pack test, Pack value) { return {test.value > 0 ? value.value : Acc(0)}; }
};

// Covers [0, count) with packs as wide as possible: calls body(offset, pack), where the value of `pack` does not
// matter.
template <typename Acc, typename Body>
void for_each_pack(int64_t count, const Body& body) {
  using Wide = Pack<Acc, Simd<Acc>::kRegisters / 8>;  // leaves room for five packs at once
  using Narrow = Pack<Acc, 1>;
  int64_t i = 0;
  for (; i + Wide::kWidth <= count; i += Wide::kWidth) body(i, Wide{});
  for (; i + Narrow::kWidth <= count; i += Narrow::kWidth) body(i, Narrow{});
  for (; i < count; ++i) body(i, Pack<Acc, 0>{});
}

MDPROP_ISA_END
