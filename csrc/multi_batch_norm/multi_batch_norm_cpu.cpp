// multi_batch_norm on the CPU, for two layouts: planes [N, C, S] and rows [N, S, C].
//
// Statistics are exact two-pass sums over leaves that stay in the first-level cache, merged in fp64 by Chan's rule in
// the order of the samples: the same bits for every number of threads and every instruction set. The lanes of a sum are
// therefore a fixed number of array elements, which the compiler turns into registers of any width.
#include "multi_batch_norm/multi_batch_norm.h"

#include "multi_batch_norm/multi_batch_norm_planes.h"
#include "multi_batch_norm/multi_batch_norm_rows_backward.h"

namespace mdprop::MDPROP_ISA {

template <typename T>
void multi_batch_norm_statistics(const MultiBatchNormStatisticsArgs<T>& args) {
  reads_rows(args.shape) ? row_statistics(args) : plane_statistics(args);
}

template <typename T>
void multi_batch_norm_forward(const MultiBatchNormForwardArgs<T>& args) {
  for (int64_t b = 0; args.count != nullptr && b < args.shape.branches; ++b) args.count[b] = count_of(args.shape, b);
  reads_rows(args.shape) ? forward_rows(args) : forward_planes(args);
}

template <typename T>
void multi_batch_norm_backward(const MultiBatchNormBackwardArgs<T>& args) {
  reads_rows(args.shape) ? backward_rows(args) : backward_planes(args);
}

#define MDPROP_INSTANTIATE(T)                                                           \
  template void multi_batch_norm_statistics<T>(const MultiBatchNormStatisticsArgs<T>&); \
  template void multi_batch_norm_forward<T>(const MultiBatchNormForwardArgs<T>&);       \
  template void multi_batch_norm_backward<T>(const MultiBatchNormBackwardArgs<T>&);
MDPROP_INSTANTIATE(float)
MDPROP_INSTANTIATE(double)
MDPROP_INSTANTIATE(BFloat16)
MDPROP_INSTANTIATE(Half)

}  // namespace mdprop::MDPROP_ISA
