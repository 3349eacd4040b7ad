// Macros shared by every kernel: instruction-set namespaces and host/device functions.
#pragma once

// CPU kernels are compiled once per instruction set, each time with another value of MDPROP_ISA. Everything that such a
// file defines or instantiates, header templates included, must live in the namespace of that name: two copies of one
// inline function, compiled with different flags under one name, would be merged by the linker, and the AVX-512 one
// could then run on a machine without AVX-512.
#ifndef MDPROP_ISA
#define MDPROP_ISA baseline
#endif

// Wraps header templates that kernels use: `mdprop::f` finds `mdprop::avx2::f` inside an AVX2 file.
#define MDPROP_ISA_BEGIN \
  namespace mdprop {     \
  inline namespace MDPROP_ISA {
#define MDPROP_ISA_END \
  }                    \
  }

// Functions that both the host and the device compile.
#ifdef __CUDACC__
#define MDPROP_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define MDPROP_HOST_DEVICE inline
#endif

#define MDPROP_RESTRICT __restrict__
