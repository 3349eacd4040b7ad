#include "emulation/async_copy.h"

#include <cstring>

#include "emulation/machine.h"

namespace mdprop::emulation {
namespace {

// The word of a barrier, in the host's own layout.
struct BarrierState {
  uint16_t expected, missing;  // arrivals a phase, and those still to come
  uint32_t bytes_and_phase;    // bytes still to come * 2 + parity of the current phase
};
static_assert(sizeof(BarrierState) == sizeof(uint64_t), "a barrier is one word");

BarrierState load(const uint64_t* state) {
  BarrierState barrier;
  std::memcpy(&barrier, state, sizeof(barrier));
  return barrier;
}

void store(uint64_t* state, BarrierState barrier) {
  if (barrier.missing == 0 && barrier.bytes_and_phase / 2 == 0) {
    barrier.missing = barrier.expected;
    barrier.bytes_and_phase ^= 1;
  }
  std::memcpy(state, &barrier, sizeof(barrier));
}

void finish(const PendingCopy& copy) {
  if (copy.bytes > 0) std::memcpy(copy.to, copy.from, copy.bytes);
  std::memset(static_cast<unsigned char*>(copy.to) + copy.bytes, 0, copy.zeros);
}

void check_alignment(const char* name, const void* shared, const void* global, size_t bytes) {
  const auto both = reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global);
  if (both % bytes != 0) fail(std::string(name) + ": an address is not aligned to " + std::to_string(bytes) + " bytes");
}

void finish_bulk_copies(const uint64_t* state) {
  auto& copies = current_thread().block->bulk_copies;
  for (size_t i = 0; i < copies.size();) {
    if (copies[i].state != state || random_bits() % 2 == 0) {
      ++i;
      continue;
    }
    finish(copies[i].copy);
    BarrierState barrier = load(copies[i].state);
    barrier.bytes_and_phase -= 2 * static_cast<uint32_t>(copies[i].copy.bytes);
    store(copies[i].state, barrier);
    copies.erase(copies.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

}  // namespace

void copy_async(void* shared, const void* global, size_t bytes, bool valid) {
  check_alignment("copy_async", shared, valid ? global : shared, bytes);
  const PendingCopy copy{shared, global, valid ? bytes : 0, valid ? 0 : bytes};
  if (random_bits() % 2 == 0) return finish(copy);
  current_thread().copies.back().push_back(copy);
}

void commit_copies() { current_thread().copies.emplace_back(); }

void wait_copies(size_t pending) {
  auto& groups = current_thread().copies;  // the last one is open and not waited for
  while (groups.size() > pending + 1) {
    for (const PendingCopy& copy : groups.front()) finish(copy);
    groups.erase(groups.begin());
  }
}

void init_barrier(uint64_t* state, unsigned threads) {
  const BarrierState barrier{static_cast<uint16_t>(threads), static_cast<uint16_t>(threads), 0};
  std::memcpy(state, &barrier, sizeof(barrier));
}

void arrive(uint64_t* state, unsigned bytes) {
  maybe_yield();
  BarrierState barrier = load(state);
  if (barrier.missing == 0) fail("arrive: the phase has all its arrivals already");
  --barrier.missing;
  barrier.bytes_and_phase += 2 * bytes;
  store(state, barrier);
}

void wait_barrier(uint64_t* state, unsigned parity) {
  while ((load(state).bytes_and_phase & 1) == parity) {
    finish_bulk_copies(state);
    yield();
  }
}

void copy_bulk(void* shared, const void* global, size_t bytes, uint64_t* state) {
  check_alignment("copy_bulk", shared, global, 16);
  if (bytes % 16 != 0) fail("copy_bulk: expected a multiple of 16 bytes, got " + std::to_string(bytes));
  current_thread().block->bulk_copies.push_back({{shared, global, bytes, 0}, state});
}

}  // namespace mdprop::emulation
