// Count, mean and sum of squared deviations of a set of values, and Chan's rule to merge two of them.
#pragma once

#include "common/macros.h"

MDPROP_ISA_BEGIN

struct Moments {
  double count = 0;
  double mean = 0;
  double m2 = 0;  // sum of (value - mean)^2
};

// Chan, Golub and LeVeque (1983). Merging in a fixed order gives the same bits on every run.
MDPROP_HOST_DEVICE void merge(Moments& into, const Moments& other) {
  if (other.count == 0) return;
  const double count = into.count + other.count;
  const double delta = other.mean - into.mean;
  into.mean += delta * (other.count / count);
  into.m2 += other.m2 + delta * delta * (into.count * other.count / count);
  into.count = count;
}

MDPROP_ISA_END
