// CUDA's warp shuffles and votes.
#pragma once

#include <cstdint>

#include "emulation/machine.h"

namespace mdprop::emulation {

template <typename T>
struct ShuffleInput {
  T value;
  int source;  // the lane to read
};

template <typename T>
T shuffle(uint32_t mask, T value, int source, Site site) {
  const ShuffleInput<T> input{value, source};
  T output;
  warp_collective(mask, site, &input, &output, [](const void* const in[], void* const out[], uint32_t mask) {
    for (int lane = 0; lane < kWarpSize; ++lane) {
      if ((mask >> lane & 1) == 0) continue;
      const int source = static_cast<const ShuffleInput<T>*>(in[lane])->source;
      if (in[source] == nullptr) fail("a shuffle reads lane " + std::to_string(source) + ", which its mask leaves out");
      *static_cast<T*>(out[lane]) = static_cast<const ShuffleInput<T>*>(in[source])->value;
    }
  });
  return output;
}

// The votes of a warp: bit l is the predicate of lane l.
inline uint32_t ballot(uint32_t mask, bool predicate, Site site) {
  uint32_t output = 0;
  warp_collective(mask, site, &predicate, &output, [](const void* const in[], void* const out[], uint32_t mask) {
    uint32_t votes = 0;
    for (int lane = 0; lane < kWarpSize; ++lane) {
      if ((mask >> lane & 1) != 0 && *static_cast<const bool*>(in[lane])) votes |= uint32_t{1} << lane;
    }
    for (int lane = 0; lane < kWarpSize; ++lane) {
      if ((mask >> lane & 1) != 0) *static_cast<uint32_t*>(out[lane]) = votes;
    }
  });
  return output;
}

inline int lane() { return static_cast<int>(current_thread().linear % kWarpSize); }

}  // namespace mdprop::emulation

inline void __syncwarp(unsigned mask = 0xffffffffu, MDPROP_SITE_PARAMETERS) {
  ::mdprop::emulation::ballot(mask, true, {"__syncwarp", file, line});
}
inline unsigned __activemask() = delete;  // tells nothing that a kernel may rely on

inline unsigned __ballot_sync(unsigned mask, int predicate, MDPROP_SITE_PARAMETERS) {
  return ::mdprop::emulation::ballot(mask, predicate != 0, {"__ballot_sync", file, line});
}
inline int __any_sync(unsigned mask, int predicate, MDPROP_SITE_PARAMETERS) {
  return ::mdprop::emulation::ballot(mask, predicate != 0, {"__any_sync", file, line}) != 0;
}
inline int __all_sync(unsigned mask, int predicate, MDPROP_SITE_PARAMETERS) {
  return ::mdprop::emulation::ballot(mask, predicate != 0, {"__all_sync", file, line}) == mask;
}

// Each reads the value of another lane of its segment of `width` lanes, or its own where there is no such lane.
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, MDPROP_SITE_PARAMETERS) {
  using namespace ::mdprop::emulation;
  const int segment = lane() / width * width;
  return shuffle(mask, value, segment + (source & (width - 1)), {"__shfl_sync", file, line});
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, MDPROP_SITE_PARAMETERS) {
  using namespace ::mdprop::emulation;
  const int source = lane() ^ lanes;
  return shuffle(mask, value, source / width <= lane() / width ? source : lane(), {"__shfl_xor_sync", file, line});
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, MDPROP_SITE_PARAMETERS) {
  using namespace ::mdprop::emulation;
  const int source = lane() - static_cast<int>(delta);
  return shuffle(mask, value, source >= lane() / width * width ? source : lane(), {"__shfl_up_sync", file, line});
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, MDPROP_SITE_PARAMETERS) {
  using namespace ::mdprop::emulation;
  const int source = lane() + static_cast<int>(delta);
  return shuffle(mask, value, source / width == lane() / width ? source : lane(), {"__shfl_down_sync", file, line});
}
