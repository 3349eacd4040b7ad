// parallel_for over std::thread, so that kernels and their tests link without torch.
#include <algorithm>
#include <cstdlib>
#include <thread>
#include <vector>

#include "common/parallel.h"

namespace mdprop {
namespace {

thread_local bool inside_parallel_region = false;

int64_t thread_count() {
  const char* text = std::getenv("MDPROP_TEST_THREADS");
  return text == nullptr ? 2 : std::max(1, std::atoi(text));
}

}  // namespace

void run_parallel(int64_t n, int64_t grain, RangeFunction function, void* context) {
  const int64_t pieces =
      inside_parallel_region
          ? 1
          : std::min(thread_count(), (n + std::max<int64_t>(grain, 1) - 1) / std::max<int64_t>(grain, 1));
  if (pieces <= 1) return function(0, n, context);
  std::vector<std::thread> threads;
  for (int64_t piece = 0; piece < pieces; ++piece) {
    threads.emplace_back([=] {
      inside_parallel_region = true;
      function(n * piece / pieces, n * (piece + 1) / pieces, context);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace mdprop
