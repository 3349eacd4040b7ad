// How kernels are launched: one way on a card, through cudaLaunchKernelEx, and in the emulation (csrc/emulation).
//
//   launch<my_kernel<float, 4>>(grid, block, shared, stream, arguments...);
#pragma once

#include <algorithm>
#include <cstddef>
#include <mutex>
#include <string>
#include <vector>

#include "common/cuda_utils.cuh"

#ifndef __CUDACC__
#include "emulation/coverage.h"
#include "emulation/machine.h"
#endif

namespace mdprop {

struct LaunchShape {
  dim3 grid, block;
  size_t shared;             // bytes of dynamic shared memory
  unsigned cluster = 1;      // blocks a cluster, along x; above 1 from sm_90 on
  bool cooperative = false;  // every block is resident at once, as grid_barrier() needs
};

// The kernel with its template arguments, as the compiler writes it.
template <auto kKernel>
std::string kernel_name() {
#ifdef __CUDACC__
  const std::string text = __PRETTY_FUNCTION__;  // "... [with auto kKernel = name; ...]", or without the "; ..."
  const size_t begin = text.find("kKernel = ") + 10;
  return text.substr(begin, std::min(text.find("; ", begin), text.size() - 1) - begin);
#else
  return emulation::kernel_name(typeid(emulation::KernelTag<kKernel>));
#endif
}

#ifdef __CUDACC__
template <auto kKernel>
void check_launch(cudaError_t status) {
  if (status != cudaSuccess) cuda_check(status, kernel_name<kKernel>());
}

// Lets the kernel have so many bytes of dynamic shared memory. The limit of a device only ever rises: another thread
// may be about to launch with what it has been given.
template <auto kKernel>
void allow_shared(size_t bytes) {
  static std::mutex mutex;
  static std::vector<size_t> allowed;  // by device
  int device = 0;
  check_launch<kKernel>(cudaGetDevice(&device));
  const std::lock_guard<std::mutex> lock(mutex);
  if (allowed.size() <= static_cast<size_t>(device)) allowed.resize(device + 1);
  if (bytes <= allowed[device]) return;
  check_launch<kKernel>(
      cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
  allowed[device] = bytes;
}
#endif

// Launches and checks the launch; `arguments` must convert to the kernel's parameters.
template <auto kKernel, typename... Arguments>
void launch_shape(const LaunchShape& shape, [[maybe_unused]] void* stream, Arguments... arguments) {
#ifdef __CUDACC__
  // Without leave a block has 48 KB, its static shared memory included.
  if (shape.shared > 0) allow_shared<kKernel>(shape.shared);
  cudaLaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (shape.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count].val.clusterDim.x = shape.cluster;
    attributes[count].val.clusterDim.y = attributes[count].val.clusterDim.z = 1;
    ++count;
  }
  if (shape.cooperative) {
    attributes[count].id = cudaLaunchAttributeCooperative;
    attributes[count++].val.cooperative = 1;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = attributes;
  config.numAttrs = count;
  check_launch<kKernel>(cudaLaunchKernelEx(&config, kKernel, arguments...));
#else
  const auto index = [](dim3 d) { return emulation::Index{d.x, d.y, d.z}; };
  emulation::run_grid(
      {kernel_name<kKernel>(), index(shape.grid), index(shape.block), shape.shared, shape.cluster, shape.cooperative},
      [&] { kKernel(arguments...); });
#endif
}

template <auto kKernel, typename... Arguments>
void launch(dim3 grid, dim3 block, size_t shared, void* stream, Arguments... arguments) {
  launch_shape<kKernel>(LaunchShape{grid, block, shared}, stream, arguments...);
}

template <auto kKernel, typename... Arguments>
void launch_cooperative(dim3 grid, dim3 block, size_t shared, void* stream, Arguments... arguments) {
  launch_shape<kKernel>(LaunchShape{grid, block, shared, 1, true}, stream, arguments...);
}

}  // namespace mdprop
