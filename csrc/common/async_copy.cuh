// Copies from global to shared memory that do not wait: groups of small ones (cp.async, from sm_80 on), and bulk ones
// that report to a barrier in shared memory (from sm_90 on).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/macros.h"

#ifndef __CUDACC__
#include "emulation/async_copy.h"
#endif

MDPROP_ISA_BEGIN

// Copies kBytes (4, 8 or 16, both addresses aligned to it), or writes zeros where not `valid` and reads nothing. The
// bytes are there for the calling thread after wait_copies, for others after a barrier that follows.
template <int kBytes>
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool valid = true) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp.async copies 4, 8 or 16 bytes");
#ifdef __CUDACC__
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int size = valid ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(size) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address), "l"(global), "n"(kBytes), "r"(size)
                 : "memory");
  }
#else
  emulation::copy_async(shared, global, kBytes, valid);
#endif
}

// Closes the group of the copies issued since the last call.
__device__ __forceinline__ void commit_copies() {
#ifdef __CUDACC__
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  emulation::commit_copies();
#endif
}

// Waits until at most kPending of the calling thread's groups, the newest, are under way.
template <int kPending>
__device__ __forceinline__ void wait_copies() {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#else
  emulation::wait_copies(kPending);
#endif
}

// A barrier in shared memory with phases: a phase ends when all threads have arrived and all expected bytes are there.
struct alignas(8) CopyBarrier {
  uint64_t state;
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

// By one thread, before a __syncthreads: `threads` is how many arrivals end a phase.
__device__ __forceinline__ void init_barrier(CopyBarrier& barrier, unsigned threads) {
#ifdef __CUDACC__
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(&barrier));
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address), "r"(threads) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#else
  emulation::init_barrier(&barrier.state, threads);
#endif
}

// One arrival, which also makes the phase wait for `bytes` of bulk copies.
__device__ __forceinline__ void arrive(CopyBarrier& barrier, unsigned bytes = 0) {
#ifdef __CUDACC__
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(&barrier));
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address), "r"(bytes) : "memory");
#else
  emulation::arrive(&barrier.state, bytes);
#endif
}

// Waits for the end of the phase of this parity: 0 for the first, 1 for the second, 0 for the third, ...
__device__ __forceinline__ void wait_barrier(CopyBarrier& barrier, unsigned parity) {
#ifdef __CUDACC__
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(&barrier));
  uint32_t done = 0;
  while (done == 0) {
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done)
                 : "r"(address), "r"(parity)
                 : "memory");
  }
#else
  emulation::wait_barrier(&barrier.state, parity);
#endif
}

// By one thread: copies `bytes`, a multiple of 16, between addresses aligned to 16; the barrier counts them.
__device__ __forceinline__ void copy_bulk(void* shared, const void* global, unsigned bytes, CopyBarrier& barrier) {
#ifdef __CUDACC__
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(&barrier));
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(global), "r"(bytes), "r"(address)
               : "memory");
#else
  emulation::copy_bulk(shared, global, bytes, &barrier.state);
#endif
}

#endif

MDPROP_ISA_END
