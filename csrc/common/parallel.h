// One way to use several threads: parallel_for over a range that is cut by data position.
//
// The extension defines run_parallel over torch's own thread pool (parallel_torch.cpp), the C++ tests over std::thread
// (tests/parallel_threads.cpp). Results must not depend on where the range is cut: a kernel that reduces does so over
// blocks of fixed size and merges them in order.
#pragma once

#include <cstdint>

#include "common/macros.h"

namespace mdprop {

using RangeFunction = void (*)(int64_t begin, int64_t end, void* context);

// Calls `function` on ranges that cover [0, n), none of fewer than `grain` items unless n is. Nested calls run in order
// on the calling thread.
void run_parallel(int64_t n, int64_t grain, RangeFunction function, void* context);

}  // namespace mdprop

MDPROP_ISA_BEGIN

// Calls body(begin, end) in parallel on ranges that cover [0, n).
template <typename Body>
void parallel_for(int64_t n, int64_t grain, const Body& body) {
  if (n <= 0) return;
  run_parallel(
      n, grain, [](int64_t begin, int64_t end, void* context) { (*static_cast<const Body*>(context))(begin, end); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

MDPROP_ISA_END
