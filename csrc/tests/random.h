// Random data of the C++ tests.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "common/numeric.h"

namespace mdprop_test {

// Normal values of the given mean and deviation, rounded to the storage type.
template <typename T>
std::vector<T> normal_values(int64_t count, uint32_t seed, double mean = 0, double deviation = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> distribution(mean, deviation);
  std::vector<T> values(count);
  for (T& value : values) value = mdprop::narrow<T>(static_cast<mdprop::acc_t<T>>(distribution(generator)));
  return values;
}

}  // namespace mdprop_test
