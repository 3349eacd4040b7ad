// Asynchronous copies on the CPU: each happens at once or as late as its wait allows, by the machine's random bits.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mdprop::emulation {

void copy_async(void* shared, const void* global, size_t bytes, bool valid);
void commit_copies();
void wait_copies(size_t pending);

void init_barrier(uint64_t* state, unsigned threads);
void arrive(uint64_t* state, unsigned bytes);
void wait_barrier(uint64_t* state, unsigned parity);
void copy_bulk(void* shared, const void* global, size_t bytes, uint64_t* state);

}  // namespace mdprop::emulation
