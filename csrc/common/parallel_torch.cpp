#include <torch/csrc/stable/ops.h>

#include "common/parallel.h"

namespace mdprop {

void run_parallel(int64_t n, int64_t grain, RangeFunction function, void* context) {
  torch::stable::parallel_for(0, n, grain, [=](int64_t begin, int64_t end) { function(begin, end, context); });
}

}  // namespace mdprop
