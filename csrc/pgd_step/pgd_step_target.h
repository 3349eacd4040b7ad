// What CPU and CUDA kernels share around one sample: its options, and where its results go.
#pragma once

#include <cstdint>
#include <type_traits>

#include "pgd_step/pgd_step.h"
#include "pgd_step/pgd_step_math.h"

MDPROP_ISA_BEGIN

// Step and radius of one sample.
template <typename T>
struct SampleOptions {
  acc_t<T> step;
  acc_t<T> radius;

  MDPROP_HOST_DEVICE SampleOptions(const PgdStepArgs<T>& args, int64_t sample)
      : step(static_cast<acc_t<T>>(args.steps != nullptr ? args.steps[sample] : args.step)),
        radius(round_down<acc_t<T>>(args.radii != nullptr ? args.radii[sample] : args.radius)) {}
};

// Where the results go. kExact: an origin is always storable in the type of the results.
template <typename Type, bool kIsExact>
struct Target {
  using Out = Type;
  static constexpr bool kExact = kIsExact || sizeof(Out) > 2;
  Out* out;  // [N, M]
};

// Calls body(target) with the output, whose type is T or, for fp32, a half type.
template <typename T, typename Body>
void with_target(const PgdStepArgs<T>& args, const Body& body) {
  if constexpr (std::is_same_v<T, float>) {
    if (args.out_bfloat16 != nullptr) return body(Target<BFloat16, false>{args.out_bfloat16});
    if (args.out_half != nullptr) return body(Target<Half, false>{args.out_half});
  } else if constexpr (sizeof(T) == 2) {
    if (args.origin_bytes != nullptr) return body(Target<T, false>{args.out});
  }
  body(Target<T, true>{args.out});
}

MDPROP_ISA_END
