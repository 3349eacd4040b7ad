// Conversions of the half types and Chan's rule against exact arithmetic.
#include <cmath>
#include <cstdint>

#include "common/numeric.h"
#include "common/welford.h"
#include "pgd_step/pgd_step_math.h"
#include "tests/check.h"
#include "tests/random.h"

namespace {

using mdprop::BFloat16;
using mdprop::Half;

double value_of_half(uint16_t bits) {
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
  return sign * (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25));
}

void test_every_half() {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const Half half{static_cast<uint16_t>(bits)};
    const double expected = value_of_half(half.bits);
    CHECK_NEAR(mdprop::widen(half), expected, 0);
    if (!std::isnan(expected)) CHECK(mdprop::narrow<Half>(static_cast<float>(expected)).bits == bits);
    const BFloat16 brain{static_cast<uint16_t>(bits)};
    const float wide = mdprop::widen(brain);
    if (!std::isnan(wide)) CHECK(mdprop::narrow<BFloat16>(wide).bits == bits);
  }
  CHECK(std::isnan(mdprop::widen(mdprop::narrow<Half>(NAN))));
  CHECK(std::isnan(mdprop::widen(mdprop::narrow<BFloat16>(NAN))));
}

// Between two neighbouring halves: the nearer one, of two equally near the even one.
void test_rounding() {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const double low = value_of_half(static_cast<uint16_t>(bits)),
                 high = value_of_half(static_cast<uint16_t>(bits + 1));
    CHECK(mdprop::narrow<Half>(static_cast<float>(low + (high - low) * 0.25)).bits == bits);
    CHECK(mdprop::narrow<Half>(static_cast<float>(low + (high - low) * 0.75)).bits == bits + 1);
    CHECK(mdprop::narrow<Half>(static_cast<float>(low + (high - low) * 0.5)).bits == bits + (bits & 1));
  }
  CHECK(mdprop::narrow<Half>(65519.0f).bits == 0x7bff);
  CHECK(mdprop::narrow<Half>(65520.0f).bits == 0x7c00);
  CHECK(mdprop::narrow<Half>(1e30f).bits == 0x7c00);
  CHECK(mdprop::narrow<Half>(-1e-30f).bits == 0x8000);
  CHECK(mdprop::narrow<BFloat16>(1.00390625f).bits == 0x3f80);  // halfway between 1 and its neighbour: even
}

void test_tiles_equal_single_conversions() {
  const auto values = mdprop_test::normal_values<Half>(100, 7);
  float tile[100];
  mdprop::widen_tile(values.data(), tile, 100);
  for (int i = 0; i < 100; ++i) CHECK_NEAR(tile[i], mdprop::widen(values[i]), 0);
}

void test_neighbours() {
  CHECK(mdprop::next_above(1.0f) == std::nextafter(1.0f, 2.0f));
  CHECK(mdprop::next_below(1.0f) == std::nextafter(1.0f, 0.0f));
  CHECK(mdprop::next_above(-1.0f) == std::nextafter(-1.0f, 0.0f));
  CHECK(mdprop::next_below(0.0f) == std::nextafter(0.0f, -1.0f));
  CHECK(mdprop::next_above(-0.0) == std::nextafter(0.0, 1.0));
  CHECK(mdprop::round_down<float>(8.0 / 255) <= 8.0 / 255);
  CHECK(mdprop::round_down<float>(0.5) == 0.5f);
}

void test_merge() {
  const auto values = mdprop_test::normal_values<double>(1000, 3, 1e6, 1);
  mdprop::Moments total;
  double sum = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    mdprop::merge(total, {1, values[i], 0});
    sum += values[i] - 1e6;
  }
  const double mean = 1e6 + sum / 1000;
  double m2 = 0;
  for (double value : values) m2 += (value - mean) * (value - mean);
  CHECK_NEAR(total.mean, mean, 1e-8);
  CHECK_NEAR(total.m2, m2, 1e-6);
  mdprop::merge(total, {});
  CHECK(total.count == 1000);
}

}  // namespace

int main() {
  test_every_half();
  test_rounding();
  test_tiles_equal_single_conversions();
  test_neighbours();
  test_merge();
  return test_summary();
}
