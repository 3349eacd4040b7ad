// One emulated CUDA thread and what it shares with its warp, block and cluster. Wrappers and intrinsics use this;
// kernels do not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace mdprop::emulation {

constexpr int kWarpSize = 32;
constexpr size_t kSharedBytes = 99 << 10;  // of a block: the least of any card from sm_80 on
constexpr size_t kMultiprocessorSharedBytes = 100 << 10;
constexpr size_t kStaticSharedBytes = 48 << 10;  // of these, what a kernel may hold without the launch giving it
constexpr size_t kGuardBytes = 256;              // before and after each piece of emulated memory
constexpr unsigned char kPoison = 0xff;          // makes every floating type a NaN, integers -1

struct Index {
  unsigned x = 1, y = 1, z = 1;
};

// Where in a kernel a call stands.
struct Site {
  const char* what;  // the name of the call
  const char* file;
  int line;
};

// Poisoned memory of one block with guard zones, which AddressSanitizer watches where it is on.
class GuardedMemory {
 public:
  explicit GuardedMemory(size_t bytes);
  ~GuardedMemory();
  GuardedMemory(GuardedMemory&& other) noexcept;
  GuardedMemory(const GuardedMemory&) = delete;

  unsigned char* data() const { return data_; }
  size_t size() const { return size_; }
  // Whether nothing was written into the guard zones.
  bool intact() const;

 private:
  unsigned char* allocation_;
  unsigned char* data_;
  size_t size_;
};

struct Block;

// A copy that was issued and may not have happened yet.
struct PendingCopy {
  void* to;
  const void* from;
  size_t bytes, zeros;
};

// One that reports to the barrier at `state`, and happens when someone waits there.
struct BulkCopy {
  PendingCopy copy;
  uint64_t* state;
};

struct Thread {
  Index index;
  unsigned linear;  // within the block
  Block* block;
  std::vector<std::vector<PendingCopy>> copies = {{}};  // by group, the open one last
};

// A point that `expected` threads must reach before any goes on.
struct Barrier {
  unsigned arrived = 0;
  Site site{};
};

struct SharedPiece {
  const void* key;
  GuardedMemory memory;
};

struct Block {
  Index index;
  unsigned cluster_rank = 0;
  Block** cluster = nullptr;  // the blocks of its cluster, by rank
  std::vector<SharedPiece> shared;
  std::vector<BulkCopy> bulk_copies;
};

Thread& current_thread();
const struct Grid& current_grid();

// Ends the grid with an error that names kernel, block and thread.
[[noreturn]] void fail(const std::string& message);

// Suspends the thread until the others have come to this point too.
void block_barrier(Site site);
void cluster_barrier(Site site);
void grid_barrier(Site site);

// Lets other threads go first.
void yield();
// Like yield, now and then: before atomic operations.
void maybe_yield();

// Every lane of `mask` hands in `in` and `out` at the same site; the last one calls complete(in, out, mask), with null
// for lanes outside the mask; then all go on.
using Complete = void (*)(const void* const in[kWarpSize], void* const out[kWarpSize], uint32_t mask);
void warp_collective(uint32_t mask, Site site, const void* in, void* out, Complete complete);

// The shared memory of the current block that belongs to `key`, created at first use; key null is the dynamic piece.
unsigned char* shared_memory(const void* key, size_t bytes);
// The same place in the shared memory of another block of the cluster.
void* distributed_shared(const void* own, unsigned rank);

}  // namespace mdprop::emulation
