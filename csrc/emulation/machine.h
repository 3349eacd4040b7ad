// The machine that runs emulated kernels: a grid of blocks of threads, each thread a fiber, in seeded random order.
//
// Every point where threads meet (barriers, shuffles, votes, products) suspends the fiber; the machine then picks any
// thread that can go on. So a kernel that lacks a barrier reads what another thread has not written yet, a sum whose
// order is left open changes from seed to seed, and threads that wait for each other in vain are reported by name.
// Plain memory accesses do not suspend: races inside one stretch between two such points go unseen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "emulation/thread.h"

namespace mdprop::emulation {

struct Grid {
  std::string name;  // of the kernel, for reports and coverage
  Index grid, block;
  size_t dynamic_shared = 0;  // bytes
  unsigned cluster = 1;       // blocks a cluster, along x
  bool cooperative = false;   // every block is resident at once, so that grid_barrier() is allowed
};

// Runs the kernel in all threads of the grid and returns when they have ended. Throws std::runtime_error with block and
// thread if a check fails: divergent barrier, deadlock, livelock, misuse of a wrapper, write beyond shared memory.
void run_grid(const Grid& grid, const std::function<void()>& kernel);

// The order of threads and blocks in the grids to come; initially the environment variable MDPROP_EMULATION_SEED, or 0.
void set_seed(uint64_t seed);

// What cudaDevAttrMultiProcessorCount answers; initially MDPROP_EMULATION_MULTIPROCESSORS, or 3. Results must not
// depend on it.
int multiprocessors();
void set_multiprocessors(int count);

// Random bits from the machine's generator, for wrappers that leave something open on purpose.
uint64_t random_bits();

}  // namespace mdprop::emulation
