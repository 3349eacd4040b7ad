// How many clusters fit on the card, and what it costs blocks to wait for one another.
#pragma once

#include <cooperative_groups.h>

#include <string>
#include <vector>

#include "unknowns_support.cuh"

namespace unknowns {

constexpr int kClusterSharedBytes = 200 * 1024;
constexpr int kWaits = 1000;

// Cycles of block 0 for each of kWaits exchanges: every block writes a number into the shared memory of all others of
// its cluster, waits, and adds up what it got.
__global__ void __launch_bounds__(256) cluster_reduce_kernel(double* cycles, float* result) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  namespace groups = cooperative_groups;
  __shared__ float slots[2][16];
  const groups::cluster_group cluster = groups::this_cluster();
  const unsigned rank = cluster.block_rank(), blocks = cluster.num_blocks();
  float value = static_cast<float>(rank);
  cluster.sync();
  const long long start = clock64();
  for (int wait = 0; wait < kWaits; ++wait) {
    // Two sets of slots, so that one barrier an exchange is enough.
    if (threadIdx.x < blocks) *cluster.map_shared_rank(&slots[wait % 2][rank], threadIdx.x) = value;
    cluster.sync();
    float sum = 0;
    for (unsigned i = 0; i < blocks; ++i) sum += slots[wait % 2][i];
    value = sum * 1e-3f;
  }
  const long long taken = clock64() - start;
  cluster.sync();
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    *cycles = double(taken) / kWaits;
    *result = value;
  }
#endif
}

// A barrier over all blocks by one counter: each of them adds 1 and looks until all have.
__global__ void __launch_bounds__(256) grid_barrier_kernel(unsigned* arrived, double* cycles) {
  const long long start = clock64();
  for (unsigned wait = 1; wait <= kWaits; ++wait) {
    __syncthreads();
    if (threadIdx.x == 0) {
      __threadfence();
      atomicAdd(arrived, 1u);
      while (*static_cast<volatile unsigned*>(arrived) < wait * gridDim.x) {
      }
      __threadfence();
    }
    __syncthreads();
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *cycles = double(clock64() - start) / kWaits;
}

// Cycles that one thread counts while it spins.
__global__ void spin_kernel(long long cycles, long long* counted) {
  const long long start = clock64();
  while (clock64() - start < cycles) {
  }
  *counted = clock64() - start;
}

// Cycles a second of a multiprocessor at work.
inline double busy_clock() {
  Device<long long> counted(1);
  const double seconds = median_seconds([&] { spin_kernel<<<1, 1>>>(20'000'000, counted.get()); });
  return double(counted.host()[0]) / seconds;
}

// The launch of the kernel in clusters of `size` blocks.
struct ClusterLaunch {
  cudaLaunchConfig_t config = {};
  cudaLaunchAttribute attribute = {};

  ClusterLaunch(int blocks, int size, int shared_bytes) {
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = static_cast<unsigned>(size);
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(256);
    config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
    config.attrs = &attribute;
    config.numAttrs = 1;
    check(cudaFuncSetAttribute(cluster_reduce_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
          "shared memory of a cluster");
    check(cudaFuncSetAttribute(cluster_reduce_kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1),
          "clusters of any size");
  }
  ClusterLaunch(const ClusterLaunch&) = delete;
};

// Clusters of 2, 4, 8 and 16 blocks with 200 KB each that are resident at once.
inline std::string active_clusters(const cudaDeviceProp& card) {
  if (card.major < 9) return "null";
  std::vector<std::pair<std::string, std::string>> fields = {{"shared_bytes", number(kClusterSharedBytes)}};
  for (const int size : {2, 4, 8, 16}) {
    const ClusterLaunch launch(size, size, kClusterSharedBytes);
    int clusters = 0;
    const cudaError_t status = cudaOccupancyMaxActiveClusters(&clusters, cluster_reduce_kernel, &launch.config);
    fields.emplace_back(std::to_string(size), status == cudaSuccess ? number(clusters) : "null");
  }
  cudaGetLastError();  // a size that the card does not have is no error of what follows
  return object(fields);
}

// One cluster of each size: cycles for an exchange among its blocks.
inline std::string cluster_reduce(const cudaDeviceProp& card) {
  if (card.major < 9) return "null";
  std::vector<std::pair<std::string, std::string>> fields;
  Device<double> cycles(1);
  Device<float> result(1);
  for (const int size : {2, 4, 8, 16}) {
    const ClusterLaunch launch(size, size, 0);
    const cudaError_t status = cudaLaunchKernelEx(&launch.config, cluster_reduce_kernel, cycles.get(), result.get());
    const bool good = status == cudaSuccess && cudaDeviceSynchronize() == cudaSuccess;
    fields.emplace_back(std::to_string(size), good ? number(cycles.host()[0]) : "null");
  }
  cudaGetLastError();
  return object(fields);
}

// One block a multiprocessor: cycles for a barrier over all of them.
inline std::string grid_barrier(const cudaDeviceProp& card) {
  Device<unsigned> arrived(1);
  Device<double> cycles(1);
  unsigned* arrived_pointer = arrived.get();
  double* cycles_pointer = cycles.get();
  void* arguments[] = {&arrived_pointer, &cycles_pointer};
  for (int round = 0; round < 2; ++round) {
    check(cudaMemset(arrived.get(), 0, sizeof(unsigned)), "cudaMemset");
    // Cooperative, so that all blocks are resident: else they would wait for ever.
    check(cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(grid_barrier_kernel),
                                      dim3(static_cast<unsigned>(card.multiProcessorCount)), dim3(256), arguments, 0,
                                      nullptr),
          "cooperative launch");
    check(cudaDeviceSynchronize(), "grid_barrier_kernel");
  }
  return object({{"blocks", number(card.multiProcessorCount)}, {"cycles", number(cycles.host()[0])}});
}

}  // namespace unknowns
