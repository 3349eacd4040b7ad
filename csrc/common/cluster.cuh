// Blocks that work together: clusters with distributed shared memory (from sm_90 on), and whole grids.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/macros.h"

#ifdef __CUDACC__
#include <cooperative_groups.h>
#endif

MDPROP_ISA_BEGIN

// Every thread of a grid launched by launch_cooperative waits for all others; what they wrote before is visible after.
#ifdef __CUDACC__
__device__ __forceinline__ void grid_barrier() { cooperative_groups::this_grid().sync(); }
#else
inline void grid_barrier(MDPROP_SITE_PARAMETERS) { emulation::grid_barrier({"grid_barrier", file, line}); }
#endif

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

// The place of the block in its cluster.
__device__ __forceinline__ unsigned cluster_rank() {
#ifdef __CUDACC__
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
#else
  return emulation::current_thread().block->cluster_rank;
#endif
}

__device__ __forceinline__ unsigned cluster_size() {
#ifdef __CUDACC__
  uint32_t size;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return size;
#else
  return emulation::current_grid().cluster;
#endif
}

// Every thread of the cluster waits for all others. No block may end while another still reads its shared memory.
#ifdef __CUDACC__
__device__ __forceinline__ void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
#else
inline void cluster_barrier(MDPROP_SITE_PARAMETERS) { emulation::cluster_barrier({"cluster_barrier", file, line}); }
#endif

// `own`, which points into this block's shared memory, in the block of the given rank.
template <typename T>
__device__ __forceinline__ T* distributed_shared(T* own, unsigned rank) {
#ifdef __CUDACC__
  uint64_t address;
  asm("mapa.u64 %0, %1, %2;" : "=l"(address) : "l"(reinterpret_cast<uint64_t>(own)), "r"(rank));
  return reinterpret_cast<T*>(address);
#else
  return static_cast<T*>(emulation::distributed_shared(own, rank));
#endif
}

#endif

MDPROP_ISA_END
