// CUDA's atomic operations on integers. Floating-point ones are left out on purpose: their sums depend on the order.
#pragma once

#include <algorithm>

#include "emulation/machine.h"

namespace mdprop::emulation {

// One thread runs at a time, so what stands between two suspensions is atomic.
template <typename T, typename Change>
T atomically(T* address, const Change& change) {
  maybe_yield();
  const T old = *address;
  *address = change(old);
  return old;
}

}  // namespace mdprop::emulation

#define MDPROP_ATOMIC(name, T, expression)                                                              \
  inline T name(T* address, T value) {                                                                  \
    return ::mdprop::emulation::atomically(address, [=](T old) { return static_cast<T>(expression); }); \
  }
#define MDPROP_ATOMICS(T)                                                                                 \
  MDPROP_ATOMIC(atomicAdd, T, old + value)                                                                \
  MDPROP_ATOMIC(atomicMin, T, std::min(old, value))                                                       \
  MDPROP_ATOMIC(atomicMax, T, std::max(old, value))                                                       \
  MDPROP_ATOMIC(atomicOr, T, old | value)                                                                 \
  MDPROP_ATOMIC(atomicAnd, T, old& value)                                                                 \
  MDPROP_ATOMIC(atomicXor, T, old ^ value)                                                                \
  MDPROP_ATOMIC(atomicExch, T, (void(old), value))                                                        \
  inline T atomicCAS(T* address, T compare, T value) {                                                    \
    return ::mdprop::emulation::atomically(address, [=](T old) { return old == compare ? value : old; }); \
  }
MDPROP_ATOMICS(int)
MDPROP_ATOMICS(unsigned)
MDPROP_ATOMICS(unsigned long long)
MDPROP_ATOMIC(atomicSub, int, old - value)
MDPROP_ATOMIC(atomicSub, unsigned, old - value)
// Counts up to `value` and starts again at 0.
MDPROP_ATOMIC(atomicInc, unsigned, old >= value ? 0u : old + 1u)
#undef MDPROP_ATOMICS
#undef MDPROP_ATOMIC
