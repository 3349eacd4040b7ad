// Tensor-core products of one warp, from sm_80 on. Fragments are laid out as in the PTX manual: group = lane / 4,
// pair = lane % 4.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/macros.h"

#ifndef __CUDACC__
#include "emulation/mma.h"
#endif

MDPROP_ISA_BEGIN

// Four 8 x 8 tiles of 16-bit values from shared memory. Lanes 8t .. 8t + 7 give the addresses of the rows of tile t, 16
// bytes each; r[t] of a lane then holds values 2 * pair and 2 * pair + 1 of row `group` of tile t.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
#ifdef __CUDACC__
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
#else
  emulation::ldmatrix(r, row, false);
#endif
}

// The same with each tile transposed.
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
#ifdef __CUDACC__
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
#else
  emulation::ldmatrix(r, row, true);
#endif
}

// d += a b with a [16, 16] and b [16, 8] of bf16, d [16, 8] of fp32.
//   a[0], a[1]: rows group and group + 8, columns 2 * pair, + 1;  a[2], a[3]: the same, columns + 8
//   b[0], b[1]: rows 2 * pair, + 1 and those + 8, column group
//   d[0], d[1]: row group, columns 2 * pair, + 1;  d[2], d[3]: row group + 8
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef __CUDACC__
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  emulation::mma_bf16(d, a, b);
#endif
}

MDPROP_ISA_END
