// The checks of the C++ tests: each failure is printed and counted, and main returns test_summary().
#pragma once

#include <cmath>
#include <cstdio>

namespace mdprop_test {

inline int failures = 0;
inline int checks = 0;

inline bool check(bool passed, const char* what, const char* file, int line) {
  ++checks;
  if (!passed && ++failures <= 20) std::printf("%s:%d: failed: %s\n", file, line, what);
  return passed;
}

// Equal within an absolute tolerance; two NaNs and two equal infinities count as equal.
inline bool near(double a, double b, double tolerance) {
  return a == b || (std::isnan(a) && std::isnan(b)) || std::fabs(a - b) <= tolerance;
}

inline int test_summary() {
  std::printf("%d checks, %d failed\n", checks, failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace mdprop_test

#define CHECK(condition) mdprop_test::check((condition), #condition, __FILE__, __LINE__)
#define CHECK_NEAR(a, b, tolerance) \
  mdprop_test::check(mdprop_test::near((a), (b), (tolerance)), #a " near " #b, __FILE__, __LINE__)

using mdprop_test::test_summary;
