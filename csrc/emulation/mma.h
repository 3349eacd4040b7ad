// Tensor-core products on the CPU; common/mma.cuh gives the layout of the fragments.
#pragma once

#include <cstdint>

namespace mdprop::emulation {

void ldmatrix(uint32_t (&r)[4], const void* row, bool transposed);
void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

}  // namespace mdprop::emulation
